package git

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// raw writes an object that git itself would refuse to make.
func (r *repo) raw(kind, data string) string {
	r.t.Helper()
	cmd := exec.Command("git", "hash-object", "-t", kind, "-w", "--literally", "--stdin")
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, gitEnv(), strings.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// rawEntry is an entry of a tree.
func rawEntry(mode, name, hash string) string {
	b, err := hex.DecodeString(hash)
	if err != nil {
		panic(err)
	}
	return mode + " " + name + "\x00" + string(b)
}

// TestHostileTrees: whatever a tree says, nothing is written outside of the
// directory, and nothing of git's own inside.
func TestHostileTrees(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t, root, "r.git")
	blob := r.raw("blob", "evil\n")
	out := r.raw("blob", outside)
	dir := r.raw("tree", rawEntry("100644", "f", blob))
	deep := dir
	for range 21 {
		deep = r.raw("tree", rawEntry("40000", "d", deep))
	}
	wide := r.raw("tree", rawEntry("100644", "f", blob))
	for range 10 { // 10^10 files in ten trees
		var b strings.Builder
		for i := range 10 {
			b.WriteString(rawEntry("40000", fmt.Sprint(i), wide))
		}
		wide = r.raw("tree", b.String())
	}
	s := serve(t, root)
	for _, tc := range []struct{ name, tree, err string }{
		{"dot dot", rawEntry("100644", "..", blob), `invalid path ".."`},
		{"dot dot as directory", rawEntry("40000", "..", dir), `invalid path ".."`},
		{"dot", rawEntry("40000", ".", dir), `invalid path "."`},
		{"slash", rawEntry("100644", "../x", blob), `invalid path "../x"`},
		{"absolute", rawEntry("100644", outside+"/x", blob), "invalid path"},
		{"git directory", rawEntry("40000", ".git", dir), `invalid path ".git"`},
		{"git directory in capitals", rawEntry("40000", ".GIT", dir), `invalid path ".GIT"`},
		{"git file", rawEntry("100644", ".git", blob), `invalid path ".git"`},
		{"gitmodules link", rawEntry("120000", ".gitmodules", out), `invalid path ".gitmodules"`},
		{"link, then directory", rawEntry("120000", "a", out) + rawEntry("40000", "a", dir), "file exists"},
		{"link, then file", rawEntry("120000", "a", out) + rawEntry("100644", "a", blob), "file exists"},
		{"link, then submodule", rawEntry("120000", "a", out) + rawEntry("160000", "a", dir), "file exists"},
		{"directory, then link", rawEntry("40000", "a", dir) + rawEntry("120000", "a", out), "file exists"},
		{"mode", rawEntry("60000", "a", blob), "mode 60000 is none of git's"},
		{"blob that is a tree", rawEntry("100644", "a", dir), "did not send blob"},
		{"deep", rawEntry("40000", "a", deep), "directories in more than"},
		{"wide", rawEntry("40000", "a", wide), "more than 1000 files"},
		{"held while another is written", rawEntry("40000", "a", dir) + strings.Repeat(rawEntry("100644", "x", blob), 1000), "more than 1000 files"},
		{"long name", rawEntry("100644", strings.Repeat("x", 300), blob), "file name too long"},
		{"long name, not shown", rawEntry("100644", strings.Repeat("x", 300), blob), "check out " + strings.Repeat("x", 255) + "...:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			head := r.raw("commit", "tree "+r.raw("tree", tc.tree)+"\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\n"+tc.name+"\n")
			r.git("update-ref", "refs/heads/main", head)
			for _, keep := range []bool{false, true} {
				c := newClient(t, Config{})
				c.limits.files, c.limits.nesting = 1000, 20
				_, err := c.Checkout(t.Context(), buildcontext.Repository{URL: s.URL + "/r.git", Ref: "main", KeepGitDir: keep, NoSubmodules: true}, t.TempDir())
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
			}
			if list := files(t, outside); len(list) > 0 {
				t.Errorf("written outside: %v", list)
			}
		})
	}
}

// packed is a pack of given objects; header and data of each are as they come.
func packed(count uint32, objects ...[]byte) []byte {
	b := append([]byte("PACK\x00\x00\x00\x02"), binary.BigEndian.AppendUint32(nil, count)...)
	for _, o := range objects {
		b = append(b, o...)
	}
	f, _ := formatOf("")
	h := f.new()
	h.Write(b)
	return h.Sum(b)
}

// packObject is one object: kind, size as it claims, what is between header and
// data, data.
func packObject(k kind, size int, base []byte, data []byte) []byte {
	b := []byte{byte(k)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	// One stored block is quick to make (RFC 1950, 1951).
	b = append(append(b, base...), 0x78, 1, 1)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	b = binary.LittleEndian.AppendUint16(b, ^uint16(len(data)))
	return binary.BigEndian.AppendUint32(append(b, data...), adler32.Checksum(data))
}

func hashOf(k kind, data []byte) []byte {
	f, _ := formatOf("")
	h := f.new()
	fmt.Fprintf(h, "%s %d\x00%s", k, len(data), data)
	return h.Sum(nil)
}

func TestHostilePacks(t *testing.T) {
	x := packObject(blobKind, 1, nil, []byte("x"))
	base := hashOf(blobKind, []byte("x"))
	delta := func(d string) []byte { return packObject(refDelta, len(d), base, []byte(d)) }
	for _, tc := range []struct {
		name string
		pack []byte
		err  string
	}{
		{"good", packed(2, x, delta("\x01\x02\x90\x01\x01y")), ""},
		{"empty", packed(0), ""},
		{"no pack", []byte("PUCK\x00\x00\x00\x02\x00\x00\x00\x00"), "not a pack"},
		{"version", []byte("PACK\x00\x00\x00\x09\x00\x00\x00\x00"), "not a pack"},
		{"nothing", nil, "hung up"},
		{"cut", packed(2, x), ""}, // takes the checksum for an object, see below
		{"too many", packed(1 << 30), "1073741824 objects are more than"},
		{"checksum", append(packed(1, x)[:12+len(x)], make([]byte, 20)...), "checksum mismatch"},
		{"larger than it says", packed(1, packObject(blobKind, 1, nil, []byte("xx"))), "has another size than it says"},
		{"smaller than it says", packed(1, packObject(blobKind, 2, nil, []byte("x"))), "has another size than it says"},
		{"no zlib", packed(1, []byte{0x31, 'n', 'o', 'n', 'o', 'n', 'o'}), "zlib"},
		{"kind", packed(1, packObject(5, 1, nil, []byte("x"))), "object of kind 5"},
		{"bomb", packed(1, packObject(blobKind, 1<<40, nil, nil)), "too much data"},
		{"endless size", packed(1, bytes.Repeat([]byte{0xff}, 30)), "object too large"},
		{"delta of nothing", packed(1, delta("\x01\x01\x90\x01")), "deltas without a base"},
		{"offset before the pack", packed(1, packObject(ofsDelta, 0, []byte{0x7f}, nil)), "delta without a base"},
		{"offset into an object", packed(2, x, packObject(ofsDelta, 4, []byte{1}, []byte("\x01\x01\x90\x01"))), "delta without a base"},
		{"of another base", packed(2, x, delta("\x05\x01\x90\x01")), "for another base"},
		{"beyond the base", packed(2, x, delta("\x01\x02\x90\x02")), "copies from beyond the base"},
		{"far beyond", packed(2, x, delta("\x01\x02\xff\xff\xff\xff\xff\xff\xff\xff")), "copies from beyond the base"},
		{"too long", packed(2, x, delta("\x01\x01\x90\x01\x01y")), "too long"},
		{"too short", packed(2, x, delta("\x01\x05\x90\x01")), "too short"},
		{"instruction", packed(2, x, delta("\x01\x01\x00")), "instruction 0"},
		{"cut instruction", packed(2, x, delta("\x01\x01\x9f")), "cut off"},
		{"cut insert", packed(2, x, delta("\x01\x05\x05a")), "cut off"},
		{"delta bomb", packed(2, x, delta("\x01\xff\xff\xff\xff\xff\xff\x01")), "too much data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, _ := formatOf("")
			p, err := newPack(t.TempDir(), f)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			err = p.receive(bytes.NewReader(tc.pack), defaultLimits)
			if tc.name == "cut" {
				tc.err = err.Error() // any
			}
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

// TestMalformedTrees: git's own server does not send these.
func TestMalformedTrees(t *testing.T) {
	blob := string(hashOf(blobKind, []byte("x")))
	for _, tc := range []struct{ tree, err string }{
		{"100644 a\x00123", "malformed tree"},
		{"100644 a", "malformed tree"},
		{"a\x00" + blob, "malformed tree"},
		{"x a\x00" + blob, "malformed tree"},
		{"100644 \x00" + blob, `invalid path ""`},
		{"40000 a\x00" + blob, "is a blob, not a tree"},
		{"100644 a\x00" + strings.Repeat("0", 20), "the server did not send blob"},
		{"40000 a\x00" + strings.Repeat("0", 20), "the server did not send tree"},
		{"120000 a\x00" + strings.Repeat("0", 20), "the server did not send blob"},
	} {
		f, _ := formatOf("")
		p, err := newPack(t.TempDir(), f)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		objects := packed(2, packObject(blobKind, 1, nil, []byte("x")), packObject(treeKind, len(tc.tree), nil, []byte(tc.tree)))
		if err := p.receive(bytes.NewReader(objects), defaultLimits); err != nil {
			t.Fatal(err)
		}
		var root id
		copy(root[:], hashOf(treeKind, []byte(tc.tree)))
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		w := &worktree{visit: &visit{Client: newClient(t, Config{}), buf: make([]byte, 10)}, src: &source{found: &found{pack: p}}}
		if err := w.write(t.Context(), root, folder{fd: int(dir.Fd())}); err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: error %v, want %q", tc.tree, err, tc.err)
		}
	}
}

// TestLongDeltaChain: ten thousand deltas, each of the one before it.
func TestLongDeltaChain(t *testing.T) {
	data := []byte("00000")
	objects := [][]byte{packObject(blobKind, 5, nil, data)}
	for i := range 10000 {
		next := fmt.Appendf(nil, "%05d", i+1)
		d := append([]byte("\x05\x05\x05"), next...)
		objects = append(objects, packObject(refDelta, len(d), hashOf(blobKind, data), d))
		data = next
	}
	f, _ := formatOf("")
	p, err := newPack(t.TempDir(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.receive(bytes.NewReader(packed(uint32(len(objects)), objects...)), defaultLimits); err != nil {
		t.Fatal(err)
	}
	var last id
	copy(last[:], hashOf(blobKind, data))
	got, err := p.read(last, blobKind)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v, want %q", got, err, data)
	}
}

// TestLargeFilesStayOnDisk has files, and a base, larger than what is ever held.
func TestLargeFilesStayOnDisk(t *testing.T) {
	root := t.TempDir()
	r := newRepo(t, root, "r.git")
	big := bytes.Repeat([]byte{0}, maxBase+maxBase/2)
	for i := 0; i < len(big); i += 1 << 16 {
		copy(big[i:], fmt.Sprint(i))
	}
	r.write("one", string(big))
	copy(big[maxBase:], "other")
	r.git("config", "core.compression", "1")
	r.write("two", string(big))
	head := r.commit("big")
	r.git("-c", "core.compression=1", "repack", "-q", "-a", "-d", "-f")
	if chain := r.git("verify-pack", "-s", onlyPack(t, r)); !strings.Contains(chain, "chain length = 1") {
		t.Fatalf("no delta in the pack: %s", chain)
	}
	s := serve(t, root)
	dir := t.TempDir()
	c := newClient(t, Config{})
	before, stop := peak()
	_, err := c.Checkout(t.Context(), buildcontext.Repository{URL: s.URL + "/r.git", Ref: head}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if grown := stop() - before; grown > maxBase {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	got, err := os.ReadFile(filepath.Join(dir, "two"))
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("another file, %v", err)
	}
}

func onlyPack(t *testing.T, r *repo) string {
	list, err := filepath.Glob(filepath.Join(r.dir, ".git/objects/pack/*.pack"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	return list[0]
}

// peak measures the heap until stop is called, which returns its largest size.
func peak() (before int64, stop func() int64) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse)
	}
	runtime.GC()
	before = heap()
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		most := before
		for {
			select {
			case <-done:
				result <- most
				return
			case <-time.After(5 * time.Millisecond):
				most = max(most, heap())
			}
		}
	}()
	return before, func() int64 { close(done); return <-result }
}

// TestHostileServers answer with anything but what was asked for.
func TestHostileServers(t *testing.T) {
	const advertised = "application/x-git-upload-pack-advertisement"
	endless := func(w http.ResponseWriter) {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "003f%040x refs/heads/%09d\n", i, i); err != nil {
				return
			}
		}
	}
	for _, tc := range []struct {
		name, kind string
		answer     func(w http.ResponseWriter)
		err        string
	}{
		{"a page", "text/html", func(w http.ResponseWriter) { io.WriteString(w, "<html>") }, "does not speak git's smart HTTP protocol"},
		{"nonsense", advertised, func(w http.ResponseWriter) { io.WriteString(w, "hello world") }, "does not speak git's protocol"},
		{"nothing", advertised, func(http.ResponseWriter) {}, "the server hung up"},
		{"refusal", advertised, func(w http.ResponseWriter) { io.WriteString(w, "0014ERR go\x1b[31m away") }, "remote error: go [31m away"},
		{"line of no length", advertised, func(w http.ResponseWriter) { io.WriteString(w, "0003") }, "line of 3 bytes"},
		{"empty repository", advertised, func(w http.ResponseWriter) { io.WriteString(w, "001e# service=git-upload-pack\n00000000") }, "could not find default branch for repository"},
		{"object format", advertised, func(w http.ResponseWriter) { io.WriteString(w, "000eversion 2\n0016object-format=md5\n0000") }, `object format "md5" is not supported`},
		{"500", "", func(w http.ResponseWriter) { w.WriteHeader(500) }, "status 500"},
		{"silence", advertised, func(w http.ResponseWriter) {
			io.WriteString(w, "000eversion 2\n")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Second)
		}, "nothing received for 300ms"},
		{"endless refs", advertised, endless, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tc.kind != "" {
					w.Header().Set("Content-Type", tc.kind)
				}
				tc.answer(w)
			}))
			defer s.CloseClientConnections()
			c := newClient(t, Config{})
			c.stall = 300 * time.Millisecond
			_, err := c.Checkout(t.Context(), buildcontext.Repository{URL: s.URL + "/r.git"}, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

// TestSilentDaemon: a connection on which nothing comes, or that is given up.
func TestSilentDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(t, Config{})
	c.stall = 200 * time.Millisecond
	_, err = c.Checkout(t.Context(), buildcontext.Repository{URL: "git://" + l.Addr().String() + "/r"}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "nothing received for 200ms") {
		t.Error(err)
	}
}

// TestDrippingDaemon: one that sends a sign of life every now and then, for ever.
func TestDrippingDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		for text := "000eversion 2\nff00"; err == nil; time.Sleep(20 * time.Millisecond) {
			_, err = io.WriteString(conn, text)
			text = "a"
		}
	}()
	c := newClient(t, Config{})
	c.stall = 100 * time.Millisecond
	_, err = c.Checkout(t.Context(), buildcontext.Repository{URL: "git://" + l.Addr().String() + "/r"}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "less than 64 KiB received in 500ms") {
		t.Error(err)
	}
}

// TestTalkativeServers say more and more, and never what was asked for.
func TestTalkativeServers(t *testing.T) {
	const hello = "000eversion 2\n0000"
	ref := fmt.Sprintf("003d%040x refs/heads/main\n0000", 1)
	for _, tc := range []struct{ name, before, line, err string }{
		{"capabilities", "000eversion 2\n", "1000" + strings.Repeat("x", 4092), "too many capabilities"},
		{"refs", hello, "0004", "too many refs"},
		{"before the pack", hello + ref, "0008data", "too much beside the pack"},
		{"shallow commits", hello + ref, "f00cshallow " + strings.Repeat("x", 0xf000), "too much beside the pack"},
		{"progress", hello + ref + "000dpackfile\n", "0006\x02x", "too much beside the pack"},
		{"no progress", hello + ref + "000dpackfile\n", "0005\x01", "too much beside the pack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				io.WriteString(c, tc.before)
				for chunk := strings.Repeat(tc.line, 1+64<<10/len(tc.line)); err == nil; {
					_, err = io.WriteString(c, chunk)
				}
			}()
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			before, measured := peak()
			_, err = newClient(t, Config{}).Checkout(ctx, buildcontext.Repository{URL: "git://" + l.Addr().String() + "/r", Ref: "main"}, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if most := measured() - before; most > 256<<20 {
				t.Errorf("%d MiB of memory", most>>20)
			}
		})
	}
}

func TestCanceled(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	s := serve(t, root)
	ctx, cancel := contextWithCause(t, errors.New("no longer wanted"))
	cancel()
	_, err := newClient(t, Config{}).Checkout(ctx, buildcontext.Repository{URL: s.URL + "/r.git"}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no longer wanted") {
		t.Error(err)
	}
}
