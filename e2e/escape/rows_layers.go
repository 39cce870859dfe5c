package escape

import (
	"archive/tar"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// layerRows go on with section 2C: what layers say of an overlay filesystem.
func layerRows() []Attack {
	return inSection("2C", []Attack{
		{ID: 60, Source: "CVE-2024-41110, CVE-2026-34040", Title: "requests with bodies that a policy does not see",
			NotApplicable: "nothing on the host passes HTTP on: the roles speak to registries themselves, and ask the launcher for credentials in frames (row 27)"},
		{ID: 61, Source: "class: whiteouts", Title: "whiteouts of the root and of parents, as devices, and files with a whiteout's name that a step or a COPY makes",
			Want: []Outcome{Rejected}, Run: whiteoutAbuse},
		{ID: 62, Source: "class: overlay attributes", Title: "attributes that an overlay would obey, in layers and set by a step: opaque, redirect, metacopy, origin",
			Want: []Outcome{Contained}, Run: overlayAttributes},
		{ID: 63, Source: "class: special files", Title: "a layer's devices of memory and disks, FIFOs and sockets, opened by a step",
			Want: []Outcome{Contained}, Run: layerDevices},
	})
}

func whiteoutAbuse(t *Target) Outcome {
	device := hostile.Entry{Name: "w", Type: tar.TypeChar} // 0:0
	archives := map[string][]byte{
		"device": hostile.Tar(t, device), "parent": hostile.Tar(t, file("a/.wh...", "")), "below": hostile.Tar(t, file(".wh.etc/passwd", "")),
	}
	refusedLayers(t, map[string]string{"device": "0:0", "parent": "whiteout of no name", "below": "below a whiteout"}, func(name string) []byte { return archives[name] })
	// What a layer cannot express is said, and is not lost or taken for a deletion.
	for _, step := range []string{"RUN echo $NONCE > /etc/.wh.passwd", "COPY nonce /etc/.wh.passwd", "COPY nonce /etc/.wh..wh..opq", "RUN echo $NONCE; mkdir -p /a/.wh.b/c"} {
		t.Build(Build{Dockerfile: "FROM $BUSYBOX\n" + step + "\n"}).Rejected(`begins with \.wh\.`)
	}
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN mknod /etc/w c 0 0 || echo refused $NONCE; test ! -e /etc/w\nRUN test -e /etc/passwd && ! ls /etc/w\n"})
	r.Done(`\d refused $NONCE`)
	return Rejected
}

// overlayAttributes has each attribute on a directory of a layer that would hide,
// or lead to, something else if it were obeyed.
func overlayAttributes(t *Target) Outcome {
	entries := []hostile.Entry{}
	for _, prefix := range []string{"trusted.overlay.", "user.overlay."} {
		for name, value := range map[string]string{"opaque": "y", "redirect": "/etc", "metacopy": "x", "origin": "x", "whiteout": "y"} {
			pax := map[string]string{"SCHILY.xattr." + prefix + name: value}
			entries = append(entries, hostile.Entry{Name: "lower/" + prefix + name + "/", Type: tar.TypeDir, PAX: pax}, hostile.Entry{Name: "lower/" + prefix + name + ".file", Data: "seen", PAX: pax})
		}
	}
	var lower []hostile.Entry
	for _, e := range entries {
		if e.Type == tar.TypeDir {
			lower = append(lower, file(e.Name+"kept", "x"))
		}
	}
	base := t.Base(hostile.Tar(t, lower...), hostile.Tar(t, entries...))
	r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY probe nonce /\n" +
		"RUN echo $(cat /lower/*/kept | wc -c) of $(ls -d /lower/*/ | wc -l), $(cat /lower/*.file | tr -cd s | wc -c) files; ! ls /lower/*/passwd\n" +
		"RUN /probe 62 xattrs && touch /lower/*/*\nRUN ls -R /lower\n"})
	r.Done(`\d 10 of 10, 10 files`)
	for path, e := range r.Image().Tree.Entries(flat.Options{}) {
		for name := range e.Xattrs {
			if strings.Contains(name, "overlay") && strings.HasPrefix(path, "/attributes") {
				t.Errorf("%s has %s", path, name)
			}
		}
	}
	return t.Verdict(r.Output)
}

func layerDevices(t *Target) Outcome {
	node := func(name string, kind byte, major, minor int64) hostile.Entry {
		return hostile.Entry{Name: name, Type: kind, Mode: 0o666, Head: func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor }}
	}
	base := t.Base(hostile.Tar(t, node("mem", tar.TypeChar, 1, 1), node("kmsg", tar.TypeChar, 1, 11), node("port", tar.TypeChar, 1, 4), node("sda", tar.TypeBlock, 8, 0),
		node("vda", tar.TypeBlock, 254, 0), node("loop", tar.TypeBlock, 7, 0), node("fuse", tar.TypeChar, 10, 229), node("kvm", tar.TypeChar, 10, 232), node("tun", tar.TypeChar, 10, 200),
		node("fifo", tar.TypeFifo, 0, 0), node("etc/fifo", tar.TypeFifo, 0, 0)))
	r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY probe nonce /\nCOPY --from=" + base + " /etc /copied\n" +
		"RUN /probe 63 devices /mem /kmsg /port /sda /vda /loop /fuse /kvm /tun && ls -l /fifo\n"})
	r.Done(`prw.*fifo`)
	return t.Verdict(r.Output)
}
