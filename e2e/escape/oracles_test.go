package escape

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plants are effects that an escape could have, each with what the oracles say.
var plants = []struct {
	name  string
	plant func(t *testing.T, target *Target, r *Result)
	want  string
}{
	{"nothing", func(*testing.T, *Target, *Result) {}, ""},
	{"what a build writes", func(t *testing.T, target *Target, _ *Result) {
		put(t, filepath.Join(target.Dir, "out", "x"), "x", 0o644)
	}, ""},
	{"a canary is written to", func(t *testing.T, target *Target, _ *Result) {
		put(t, filepath.Join(target.Dir, "canary"), "over", 0o644)
	}, "canary was"},
	{"a canary is written to with its own content", func(t *testing.T, target *Target, _ *Result) {
		put(t, filepath.Join(target.Dir, "canary"), target.Word+"\n", 0o644)
	}, "canary was"},
	{"the mode of a canary", func(t *testing.T, target *Target, _ *Result) {
		must(t, os.Chmod(filepath.Join(target.Dir, "etc/shadow"), 0o666))
	}, "etc/shadow was"},
	{"the owner of a directory", func(t *testing.T, target *Target, _ *Result) {
		must(t, os.Chown(filepath.Join(target.Dir, "home"), 1, 1))
	}, "home was"},
	{"a canary is removed", func(t *testing.T, target *Target, _ *Result) {
		must(t, os.Remove(filepath.Join(target.Dir, "bin/tool")))
	}, "bin/tool is gone"},
	{"a file beside a canary", func(t *testing.T, target *Target, _ *Result) { put(t, filepath.Join(target.Dir, "etc/new"), "", 0o644) }, "etc/new is new"},
	{"a link in the context", func(t *testing.T, target *Target, _ *Result) {
		must(t, os.Symlink("/", filepath.Join(target.Dir, "ctx/l")))
	}, "ctx/l is new"},
	{"a leftover in $TMPDIR", func(t *testing.T, target *Target, _ *Result) { put(t, filepath.Join(target.Dir, "tmp/x"), "", 0o644) }, "tmp/x is new"},
	{"a file in /etc", func(t *testing.T, _ *Target, _ *Result) {
		put(t, "/etc/kbuild-planted", "", 0o644)
		t.Cleanup(func() { os.Remove("/etc/kbuild-planted") })
	}, "/etc/kbuild-planted is new"},
	{"a file in /", func(t *testing.T, _ *Target, _ *Result) {
		put(t, "/kbuild-planted", "", 0o644)
		t.Cleanup(func() { os.Remove("/kbuild-planted") })
	}, "/kbuild-planted is new"},
	{"the executor", func(t *testing.T, target *Target, _ *Result) {
		must(t, os.Chmod(filepath.Join(target.Bin, "kbuild-executor"), 0o755)) // as it was: its time of change tells
	}, "kbuild-executor was"},
	{"a connection to the metadata service", func(t *testing.T, _ *Target, _ *Result) { connect(t, "tcp", "169.254.169.254:80") }, "canary server: tcp 169.254.169.254:80"},
	{"a datagram to the host", func(t *testing.T, _ *Target, _ *Result) { connect(t, "udp", "127.0.0.1:53") }, "canary server: udp 127.0.0.1:53"},
	{"a process", func(t *testing.T, target *Target, _ *Result) {
		must(t, exec.Command("sh", "-c", "sh -c 'sleep 3; : "+target.Dir+"/tmp/r' </dev/null >/dev/null 2>&1 &").Run())
	}, "left running"},
	{"a mount", func(t *testing.T, target *Target, _ *Result) {
		at := filepath.Join(target.Dir, "bin")
		must(t, unix.Mount("tmpfs", at, "tmpfs", 0, ""))
		t.Cleanup(func() { must(t, unix.Unmount(at, 0)) })
	}, "left mounted"},
	{"the word in the output", func(_ *testing.T, target *Target, r *Result) { r.Output = "x" + target.Word + "x" }, "canary files is in the output"},
	{"the password in base64", func(_ *testing.T, target *Target, r *Result) {
		r.Output = base64.StdEncoding.EncodeToString([]byte("builder:" + target.Login.Password))
	}, "password in base64"},
	{"the password in hex", func(_ *testing.T, target *Target, r *Result) {
		r.Output = hex.EncodeToString([]byte(target.Login.Password))
	}, "password in hex"},
	{"the word in a layer", func(t *testing.T, target *Target, _ *Result) {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(strings.Repeat("x", 1000) + target.Word))
		must(t, w.Close())
		put(t, filepath.Join(target.Dir, "out/image1/blobs/sha256/x"), b.String(), 0o644)
	}, "x unpacked"},
}

// postureFires wants that builds have one posture, and that another is found.
func postureFires(t *testing.T, site *Site) {
	target := site.Target(t, 0)
	build := Build{Dockerfile: "FROM scratch\nCOPY nonce /\n"}
	target.Build(build).Done()
	target.Build(build).Done()
	if len(target.findings) > 0 {
		t.Errorf("found %q", target.findings)
	}
	const form = "pushed false"
	was := site.postureOf[form]
	site.postureOf[form] = "planted"
	target.Build(build).Done()
	site.postureOf[form] = was
	if all := strings.Join(target.findings, "\n"); !strings.Contains(all, "posture: "+was) {
		t.Errorf("found %q", all)
	}
}

// oraclesFire plants effects and wants that the oracles see each of them, and
// nothing else.
func oraclesFire(t *testing.T, site *Site) {
	t.Run("posture", func(t *testing.T) { postureFires(t, site) })
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			target := site.Target(t, 0)
			before := target.snapshot()
			r := &Result{t: target}
			p.plant(t, target, r)
			time.Sleep(20 * time.Millisecond) // until a server has counted
			found := append(target.changes(before), target.search(r)...)
			all := strings.Join(found, "\n")
			if p.want == "" && len(found) > 0 || !strings.Contains(all, p.want) {
				t.Errorf("found %q, want %q", found, p.want)
			}
		})
	}
}

func connect(t *testing.T, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	must(t, err)
	_, err = c.Read(make([]byte, 100))
	must(t, err)
}
