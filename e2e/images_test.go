package e2e

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// open finds an image: a reference in a registry, layout:DIR, or tar:FILE; of an
// index the one for a platform that follows after a %.
func open(ts *testscript.TestScript, ref string) v1.Image {
	ref, platform, _ := strings.Cut(ref, "%")
	top, err := find(ts, ref)
	ts.Check(err)
	if img, ok := top.(v1.Image); ok {
		return img
	}
	idx, ok := top.(v1.ImageIndex)
	if !ok || platform == "" {
		ts.Fatalf("%s is an index: say %%platform", ref)
	}
	m, err := idx.IndexManifest()
	ts.Check(err)
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.String() == platform {
			img, err := idx.Image(d.Digest)
			ts.Check(err)
			return img
		}
	}
	ts.Fatalf("%s has no %s", ref, platform)
	return nil
}

// manifested is an image or an index.
type manifested interface{ RawManifest() ([]byte, error) }

func find(ts *testscript.TestScript, ref string) (manifested, error) {
	if dir, ok := strings.CutPrefix(ref, "layout:"); ok {
		idx, err := layout.ImageIndexFromPath(ts.MkAbs(dir))
		if err != nil {
			return nil, err
		}
		m, err := idx.IndexManifest()
		if err != nil {
			return nil, err
		}
		if len(m.Manifests) != 1 {
			ts.Fatalf("%s has %d images", ref, len(m.Manifests))
		}
		if m.Manifests[0].MediaType.IsIndex() {
			return idx.ImageIndex(m.Manifests[0].Digest)
		}
		return idx.Image(m.Manifests[0].Digest)
	}
	if file, ok := strings.CutPrefix(ref, "tar:"); ok {
		return tarball.ImageFromPath(ts.MkAbs(file), nil)
	}
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return nil, err
	}
	d, err := remote.Get(r)
	if err != nil {
		return nil, err
	}
	if d.MediaType.IsIndex() {
		return d.ImageIndex()
	}
	return d.Image()
}

// topCommand asks jq about the manifest of what a reference names.
func topCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: top IMAGE EXPR")
	}
	top, err := find(ts, args[0])
	ts.Check(err)
	raw, err := top.RawManifest()
	ts.Check(err)
	jq(ts, raw, args[1])
}

func absentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: absent REF")
	}
	_, err := find(ts, args[0])
	var answer *transport.Error
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusNotFound {
		ts.Fatalf("%s: wanted a 404, got %v", args[0], err)
	}
}

// indexCommand pushes an index: index REF IMAGE...
func indexCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: index REF IMAGE...")
	}
	idx := v1.ImageIndex(empty.Index)
	for _, ref := range args[1:] {
		img := open(ts, ref)
		file, err := img.ConfigFile()
		ts.Check(err)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: file.Platform()},
		})
	}
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	ts.Check(remote.WriteIndex(ref, idx))
}

// unpackCommand copies an image to an OCI layout with skopeo and unpacks it
// with umoci: two readers that are not ours.
func unpackCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: unpack IMAGE DIR")
	}
	unpack(ts, args[0], ts.MkAbs(args[1]))
}

func unpack(ts *testscript.TestScript, ref, dir string) {
	from := "docker://" + ref
	if d, ok := strings.CutPrefix(ref, "layout:"); ok {
		from = "oci:" + ts.MkAbs(d)
	}
	copied := filepath.Join(ts.Getenv("SIDE"), "copied-"+filepath.Base(dir))
	ts.Check(ts.Exec("skopeo", "copy", "-q", "--src-tls-verify=false", from, "oci:"+copied+":x"))
	ts.Check(ts.Exec("umoci", "unpack", "--image", copied+":x", dir))
}

// stubs are files that buildah leaves in an image for its own mounts.
var stubs = map[string]bool{"/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true, "/run": true, "/run/.containerenv": true}

// sameAsBuildah builds the same thing with us and with buildah and compares the
// two trees; then ours with what umoci unpacks of it.
func sameAsBuildah(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("same-as-buildah cannot be negated")
	}
	side := ts.Getenv("SIDE")
	buildCommand(ts, false, append([]string{"--no-push", "--oci-layout-path", filepath.Join(side, "ours")}, args...))
	root := filepath.Join(side, "root")
	defer unix.Unmount(filepath.Join(root, "overlay"), unix.MNT_DETACH) // buildah leaves it mounted on itself
	store := []string{"--root", root, "--runroot", filepath.Join(side, "run"), "--storage-driver", "overlay"}
	ts.Check(ts.Exec("buildah", append(append(store, "bud", "-q", "--isolation", "chroot", "--tls-verify=false",
		"--identity-label=false", "-t", "x"), args...)...))
	ts.Check(ts.Exec("buildah", append(store, "push", "-q", "x", "oci:"+filepath.Join(side, "theirs"))...))

	ours := flatten(ts, "layout:"+filepath.Join(side, "ours")).Entries(flat.Options{})
	theirs := flatten(ts, "layout:"+filepath.Join(side, "theirs")).Entries(flat.Options{})
	compare(ts, "buildah", listed(theirs), listed(ours))

	unpack(ts, "layout:"+filepath.Join(side, "ours"), filepath.Join(side, "unpacked"))
	tree, err := flat.Dir(filepath.Join(side, "unpacked", "rootfs"))
	ts.Check(err)
	compare(ts, "umoci", listed(tree.Entries(flat.Options{})), listed(ours))
}

func listed(entries map[string]flat.Entry) []flat.Entry {
	for p := range stubs {
		delete(entries, p)
	}
	changed, _ := flat.Diff(nil, entries)
	return changed
}

func compare(ts *testscript.TestScript, with string, want, got []flat.Entry) {
	if diff := flat.Compare(want, got); len(diff) > 0 {
		const most = 40
		ts.Fatalf("differs from %s's in %d paths:\n%s", with, len(diff), strings.Join(diff[:min(len(diff), most)], "\n"))
	}
}
