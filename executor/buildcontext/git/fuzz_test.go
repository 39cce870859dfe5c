package git

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// FuzzReceive takes any bytes for a pack. What it accepts has to hold together:
// each object is found by its hash, and holds as much as it says.
func FuzzReceive(f *testing.F) {
	x := packObject(blobKind, 1, nil, []byte("x"))
	d := []byte("\x01\x02\x90\x01\x01y")
	f.Add(packed(2, x, packObject(refDelta, len(d), hashOf(blobKind, []byte("x")), d)))
	f.Add(packed(2, x, packObject(ofsDelta, len(d), []byte{byte(len(x))}, d)))
	f.Add(packed(1, packObject(treeKind, 0, nil, nil)))
	dir := f.TempDir()
	lim := limits{objects: 100, received: 1 << 20, inflated: 1 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		sha, _ := formatOf("")
		p, err := newPack(dir, sha)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if len(data) > 20 { // the checksum is not what is tried
			h := sha.new()
			h.Write(data[:len(data)-20])
			data = h.Sum(data[: len(data)-20 : len(data)-20])
		}
		if p.receive(bytes.NewReader(data), lim) != nil {
			return
		}
		for _, o := range p.objects {
			at, ok := p.find(o.id)
			if !ok {
				t.Fatalf("%s is not found", sha.hex(o.id))
			}
			if got, err := p.read(o.id, o.kind); err != nil || int64(len(got)) != p.objects[at].size || !bytes.Equal(hashOf(o.kind, got), o.id[:20]) {
				t.Fatalf("%s: %q, %v", sha.hex(o.id), got, err)
			}
			if o.kind == treeKind {
				p.readTree(o.id)
			}
		}
	})
}

// FuzzServer takes any bytes for what a server says.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"001e# service=git-upload-pack\n0000000eversion 2\n0011fetch=shallow\n0000",
		"0032" + strings.Repeat("0", 39) + "1 HEAD\x00a b=c\n0000",
		"000eversion 1\n0014ERR hello world\n", "0004", "0001", "fff0",
	} {
		f.Add([]byte(s), []byte("000dpackfile\n0006\x01P0000"))
	}
	f.Fuzz(func(t *testing.T, hello, answer []byte) {
		r, err := greet(t.Context(), &said{hello, answer}, "test")
		if err != nil {
			return
		}
		if r.list(t.Context(), "HEAD") != nil {
			return
		}
		r.ref("HEAD")
		if pack, _, err := r.fetch(t.Context(), []id{{1}}, false); err == nil {
			bufio.NewReader(pack).Peek(100)
		}
	})
}

// FuzzParseModules takes any bytes for .gitmodules.
func FuzzParseModules(f *testing.F) {
	f.Add("[submodule \"a b\\\"c\"]\n\tpath = x # y\n\turl = \"q;\" \\\n z\nupdate")
	f.Fuzz(func(t *testing.T, text string) {
		modules, err := parseModules(text)
		if err != nil {
			return
		}
		parent, err := parseAddress("https://h/x.git")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules {
			if u, err := moduleAddress(parent, m.url); err == nil && (u.Hostname() == "" || remotePath(u) == "" || remotePath(u)[0] == '-') {
				t.Errorf("%q leads to %q", m.url, u)
			}
			if validModule(m.name) && (strings.Contains("/"+m.name+"/", "/../") || m.name[0] == '/') {
				t.Errorf("name %q leads out of .git", m.name)
			}
		}
	})
}
