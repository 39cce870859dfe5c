package escape

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// archiveRows are what Docker, containerd and tools that unpack layers had.
func archiveRows() []Attack {
	return inSection("2C", []Attack{
		{ID: 40, Source: "CVE-2018-15664, CVE-2026-41568, CVE-2026-42306", Title: "a daemon that a step leaves changes the tree that COPY --from reads",
			Want: []Outcome{Inert}, Run: daemonAndCopy},
		{ID: 41, Source: "CVE-2019-14271, CVE-2026-41567", Title: "an image with its own tar, xz, git, sh, NSS and ld.so.preload: nothing of it runs for ADD, COPY and USER",
			Want: []Outcome{Inert}, Run: trojanTools},
		{ID: 42, Source: "CVE-2026-28406, GHSA-6rxq-q92g-4rmf", Title: "names in layers that lead up or are absolute",
			Want: []Outcome{Contained}, Run: layerNames},
		{ID: 43, Source: "kaniko cg326 attack 2", Title: "layers with links up and files through them, hard links too, in one layer and over two",
			Want: []Outcome{Contained}, Run: layerLinks},
		{ID: 44, Source: "kaniko cg326 attack 3", Title: "links with more .. than there are directories are honest and work",
			Want: []Outcome{Contained}, Run: honestLinks},
		{ID: 45, Source: "CVE-2021-29136", Title: "an archive whose root is a link, a file or a device",
			Want: []Outcome{Rejected}, Run: rootEntries},
		{ID: 46, Source: "oras-go hard links", Title: "hard links to files of the host, to links, devices, later entries and whiteouts",
			Want: []Outcome{Contained, Rejected}, Run: hardLinks},
		{ID: 47, Source: "CVE-2025-47290", Title: "directories become links within an archive and between layers that are unpacked at once",
			Want: []Outcome{Contained}, Run: swappedParents},
		{ID: 48, Source: "CVE-2021-32760", Title: "mode, owner, time and attributes of links: not those of what they name",
			Want: []Outcome{Contained}, Run: linkAttributes},
		{ID: 49, Source: "GHSA-rp3h-jf77-q9p4", Title: "archives that take more than linear time: many entries, whiteouts, hard links; twice as many take not much more than twice as long",
			Want: []Outcome{Contained}, Run: superlinear},
		{ID: 50, Source: "CVE-2025-58183", Title: "sparse maps and PAX records without end, negative sizes",
			Want: []Outcome{Rejected}, Run: headerBombs},
		{ID: 51, Source: "CVE-2017-14992", Title: "layers that expand: gzip of many members, zstd, files of 8 EiB with holes; digests that are wrong",
			Want: []Outcome{Limited}, Run: decompressionBombs},
		{ID: 52, Source: "CVE-2014-6407, CVE-2014-9356, CVE-2014-9357, CVE-2014-9358", Title: "images in a directory whose ids are paths: OCI layouts; what docker save writes is no context",
			Want: []Outcome{Rejected}, Run: layoutIDs},
		{ID: 53, Source: "CVE-2021-41190", Title: "a manifest that is an index too, and types that change between answers",
			Want: []Outcome{Rejected}, Run: manifestConfusion},
		{ID: 54, Source: "CVE-2020-1702, CVE-2023-25153", Title: "manifests, configs and indexes without an end, and ones that come a byte at a time",
			Want: []Outcome{Rejected}, Run: endlessManifests},
		{ID: 55, Source: "CVE-2024-3727", Title: "digests that are paths, of another kind, in capitals, too short",
			Want: []Outcome{Rejected}, Run: oddDigests},
		{ID: 56, Source: "CVE-2024-40635", Title: "USER with numbers that overflow, are negative or written otherwise",
			Want: []Outcome{Rejected}, Run: userOverflow},
		{ID: 57, Source: "CVE-2022-23648", Title: "an image's config with volumes, a working directory and variables that lead out",
			Want: []Outcome{Contained}, Run: configPaths},
		{ID: 58, Source: "GHSA-xhf5-7wjv-pqxp", Title: "labels and annotations of an image that mean something to a runtime: none is in an OCI spec",
			Want: []Outcome{Inert}, Run: runtimeLabels},
		{ID: 59, Source: "GHSA-cvxm-645q-p574", Title: "a forged checkpoint of a warm executor",
			NotApplicable: "there are no checkpoints: every sandbox starts cold"},
	})
}

func daemonAndCopy(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX AS evil
COPY probe nonce /
RUN mkdir -p /d/real /d/s && cp /nonce /d/real/f && ln -s real /d/d; \
    (setsid /probe 40 swap /d 60 </dev/null >/dev/null 2>&1 &); \
    (setsid sh -c 'while :; do mv /d/s /d/t; ln -s /etc /d/s; rm /d/s; mv /d/t /d/s; done' </dev/null >/dev/null 2>&1 &); sleep 0.3
FROM $BUSYBOX
COPY --from=evil /d/ /one/
COPY --from=evil /d/ /two/
COPY --from=evil /d/real/../d/ /three/
RUN --mount=type=bind,from=evil,source=/d,target=/d ls -la /d /one /two; test "$(cd /one && find . | sort)" = "$(cd /two && find . | sort)" && echo same $(cat /one/real/f)
`})
	r.Done(`same $NONCE`)
	return Inert
}

func trojanTools(t *Target) Outcome {
	const trojan = "#!/bin/busybox sh\necho TROJAN ran; echo x > /pwned\n"
	entries := []hostile.Entry{dir("bin"), dir("usr/bin"), dir("etc/ssl/certs"), dir("lib"), file("etc/ld.so.preload", "/lib/evil.so"), file("lib/evil.so", trojan),
		file("etc/nsswitch.conf", "passwd: evil\ngroup: evil\nhosts: evil\n"), file("lib/libnss_evil.so.2", trojan), file("etc/mime.types", trojan),
		file("etc/ssl/certs/ca-certificates.crt", "evil"), file("etc/resolv.conf", "nameserver 127.0.0.1\n"), file("etc/localtime", strings.Repeat("x", 100)),
		file("etc/gitconfig", "[core]\n\tsshCommand = /bin/git\n"), file("etc/nonce", t.Nonce)}
	for _, name := range []string{"sh", "tar", "xz", "gzip", "gunzip", "unpigz", "pigz", "zstd", "bzip2", "git", "ssh", "cp", "chown", "getent", "mkdir", "newuidmap", "fuse-overlayfs"} {
		entries = append(entries, file("bin/"+name, trojan), file("usr/bin/"+name, trojan))
	}
	r := t.Build(Build{
		Dockerfile: "FROM " + t.Base(hostile.Tar(t, entries...)) + `
ADD x.tar.xz x.tar.gz x.tar.zst x.tar.bz2 x.tar /x/
ADD http://$PUBLIC/hello /hello
COPY --chown=app:app nonce /owned
COPY --from=$BUSYBOX /etc/group /group
WORKDIR /new/dir
USER app
RUN ["/bin/busybox", "sh", "-c", "ls -la / /x; cat /x/xz /x/gz /x/zst /x/bz2 /x/tar; test ! -e /pwned && cat /owned && echo clean $(busybox cat /etc/nonce)"]
`,
		Prepare: packed,
	})
	r.Done(`xz packed`, `gz packed`, `zst packed`, `bz2 packed`, `tar packed`, `clean $NONCE`)
	r.Hides(`TROJAN`)
	return Inert
}

// packed makes x.tar and packed forms of it, each with a file of its name, by the
// host's tools.
func packed(context string) error {
	for suffix, flag := range map[string]string{"xz": "-J", "gz": "-z", "zst": "--zstd", "bz2": "-j", "tar": ""} {
		name := "x.tar." + suffix
		if suffix == "tar" {
			name = "x.tar"
		}
		if err := os.WriteFile(filepath.Join(context, suffix), []byte(suffix+" packed\n"), 0o644); err != nil {
			return err
		}
		args := []string{"-C", context, "-cf", filepath.Join(context, name), suffix}
		if flag != "" {
			args = append([]string{flag}, args...)
		}
		if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("tar %s: %w: %s", flag, err, out)
		}
	}
	return nil
}

// refusedLayers wants each archive refused as a layer, with its complaint.
func refusedLayers(t *Target, complaints map[string]string, archive func(name string) []byte) Outcome {
	t.Helper()
	for name, complaint := range complaints {
		t.Log(name)
		r := t.Build(Build{Dockerfile: "FROM " + t.Base(archive(name)) + "\nCOPY nonce /\nRUN echo $NONCE ran\n"})
		r.Rejected(complaint)
		r.Hides(`\d $NONCE ran`)
	}
	return Rejected
}

func layerNames(t *Target) Outcome {
	refusedLayers(t, map[string]string{"a/../../../../../../slip": "leads out", "..": "leads out", strings.Repeat("../", 400) + "slip": "leads out|name of more"},
		func(name string) []byte { return hostile.Tar(t, file(name, "slip")) })
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(hostile.Tar(t, file("/slip-absolute", t.Nonce), file("//two", "x"), file(`..\slip`, "x"), file("a/../slip", "x"), file("./././dots", "x"),
		file(t.Dir+"/canary", "over"), file("/kbuild-executor", "over"), file("in/request.json", "{}"), file("/w/x", "x"))) +
		"\nRUN cat /slip-absolute; cat /kbuild-executor; ls -la / /in /w\n"})
	outcome := r.Done(`$NONCE`, `over`, `request.json`)
	tree := r.Image().Tree.Entries(flat.Options{})
	for _, path := range []string{"/slip-absolute", "/two", `/..\slip`, "/slip", "/dots", t.Dir + "/canary", "/kbuild-executor"} {
		if _, there := tree[path]; !there {
			t.Errorf("%s is not in the image", path)
		}
	}
	return outcome
}

func layerLinks(t *Target) Outcome {
	up := strings.Repeat("../", 10)
	hard := func(name, to string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeLink, Link: to}
	}
	first := hostile.Tar(t, link("evil", up), file("evil/tini", t.Nonce), link("evil2", up+t.Dir), file("evil2/canary", "over"), file("evil2/new", "over"), link("evil3", "/proc/self/root"),
		file("evil3/three", "x"), link("chain", "evil"), file("chain/four", "x"), file("own", "x"), hard("hard", "evil/tini"), hard("hard2", "own"), link("exe", "/kbuild-executor"))
	second := hostile.Tar(t, file("evil/later", "x"), file("evil2/deeper/canary", "over"), dir("evil"), file("exe", "over"), link("own", up+t.Dir+"/canary"), file("hard2", "over"), dir("evil2/etc"), file("evil2/etc/shadow", "over"))
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(first, second) + "\nRUN cat /tini /hard /four /three; ls -la / " + t.Dir + "\nCOPY nonce /evil/copied\nCOPY nonce /evil2/copied\nRUN ls /copied /evil2/copied && echo links $(cat /nonce) || echo links\n"})
	outcome := r.Done(`$NONCE`, `\d links`)
	if e := r.Image().Tree.Entries(flat.Options{LooseHardlinks: true})["/tini"]; !strings.Contains(e.Text, t.Nonce) {
		t.Errorf("/tini is %+v", e)
	}
	return outcome
}

func honestLinks(t *Target) Outcome {
	base := t.Base(hostile.Tar(t, dir("opt/scanner/jre/bin"), link("opt/scanner/jre/bin/java", "../../../../../../../../../usr/lib/java"), dir("usr/lib"), file("usr/lib/java", t.Nonce),
		link("dangling", strings.Repeat("../", 30)+"nowhere"), link("etc/alternatives", "../../..//usr/lib")))
	return t.Build(Build{Dockerfile: "FROM " + base + "\nRUN cat /opt/scanner/jre/bin/java /etc/alternatives/java; test -L /dangling\nCOPY --from=" + base + " /opt /copy\nRUN cat /copy/scanner/jre/bin/java\n"}).Done(`$NONCE$NONCE|$NONCE`)
}

func rootEntries(t *Target) Outcome {
	entries := map[string]hostile.Entry{
		"link": link("./", t.Dir), "absolute": link("/", "/"), "file": file(".", "x"),
		"device": {Name: ".", Type: tar.TypeChar, Head: func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 3 }},
	}
	const complaint = "root is not a directory"
	return refusedLayers(t, map[string]string{"link": complaint, "absolute": complaint, "file": complaint, "device": complaint},
		func(name string) []byte { return hostile.Tar(t, entries[name], file("canary", "over")) })
}

func hardLinks(t *Target) Outcome {
	hard := func(name, to string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeLink, Link: to}
	}
	archives := map[string][]byte{
		"host":     hostile.Tar(t, hard("h", t.Dir+"/canary"), file("h", "over")),
		"up":       hostile.Tar(t, hard("h", "../../../../../../.."+t.Dir+"/canary"), file("h", "over")),
		"whiteout": hostile.Tar(t, file(".wh.etc", ""), hard("h", ".wh.etc")),
		"dir":      hostile.Tar(t, hard("h", "etc")),
	}
	refusedLayers(t, map[string]string{"host": "no such file", "up": "leads out", "whiteout": "no such file", "dir": "is a directory|special file"},
		func(name string) []byte { return archives[name] })
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(hostile.Tar(t, file("own", t.Nonce), link("l", t.Dir+"/canary"), hard("toLink", "l"), file("toLink", "over"), hard("toOwn", "own"), hard("toBase", "etc/passwd"))) +
		"\nRUN cat /toOwn; grep -q root /toBase && echo contained\n"})
	return r.Done(`$NONCE`, `contained`)
}

func swappedParents(t *Target) Outcome {
	swap := func(i int) []byte {
		return hostile.Tar(t, dir("a"), dir("a/b"), file("a/b/f", "x"), link("a/b", t.Dir), file("a/b/canary", "over"), dir("a/b"), file("a/b/f2", "x"), link("a", "/etc"), file("a/mark"+fmt.Sprint(i), "x"),
			dir("a"), file("a/g", "x"), link("d", "a"), file("d/h", "x"), link("a", ".."), file("d/i", t.Nonce), file("a/../j", "x"))
	}
	var layers [][]byte
	for i := range 6 {
		layers = append(layers, swap(i))
	}
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(layers...) + "\nRUN cat /i; ls -la / /a/ /d/ /etc; cat /etc/passwd\n"})
	return r.Done(`$NONCE`, `root:x:0:0`)
}

func linkAttributes(t *Target) Outcome {
	change := func(name, to string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: to, Mode: 0o7777, PAX: map[string]string{"SCHILY.xattr.user.evil": "1"},
			Head: func(h *tar.Header) { h.Uid, h.Gid, h.ModTime = 4711, 4711, time.Unix(1, 0) }}
	}
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(hostile.Tar(t, hostile.Entry{Name: "victim", Data: t.Nonce, Mode: 0o600}, change("a", "/victim"), change("b", t.Dir+"/canary"), change("c", "/kbuild-executor"),
		change("d", "/in/request.json"), change("e", "/"), change("f", "../../../../../../../w"))) +
		"\nRUN stat -c 'victim %a %u:%g' /victim; stat -c 'root %a %u:%g' /; stat -c 'link %u:%g' /a; echo $(cat /victim)\nCOPY --from=$BUSYBOX --chown=9:9 --chmod=777 /etc/passwd /a\nRUN stat -c 'again %a %u:%g' /victim\n"})
	return r.Done(`victim 600 0:0`, `root 755 0:0`, `link 4711:4711`, `$NONCE`)
}
