package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"
)

// TestSearch finds what other programs make of a canary, wherever it lies.
func TestSearch(t *testing.T) {
	c := NewCanary("x", "someone")
	s := NewSearch(c, NewCanary("another", "else"))
	js, err := json.Marshal(map[string]string{"a": c.Value})
	if err != nil {
		t.Fatal(err)
	}
	var wide bytes.Buffer
	for _, u := range utf16.Encode([]rune(c.Value)) {
		wide.Write([]byte{byte(u), byte(u >> 8)})
	}
	shell := func(script string) []byte {
		out, err := exec.Command("bash", "-c", script, "x", c.Value).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, text := range map[string][]byte{
		"as it is": []byte(c.Value), "JSON": js, "UTF-16": wide.Bytes(),
		"URL":             []byte("https://someone:" + url.QueryEscape(c.Value) + "@host"),
		"basic":           []byte("Basic " + base64.StdEncoding.EncodeToString([]byte("someone:"+c.Value))),
		"another user":    []byte(base64.URLEncoding.EncodeToString([]byte("u:" + c.Value))),
		"token of a user": []byte(base64.RawStdEncoding.EncodeToString([]byte(`{"t":"` + c.Value + `"}`))),
		"hex":             []byte(hex.EncodeToString([]byte(c.Value))),
		"dump":            shell(`printf %s "$1" | od -An -tx1 | tr -d '\n'`),
		"rev":             shell(`rev <<<"$1"`),
		"base32":          shell(`printf %s "$1" | base32`),
		"sum":             shell(`printf %s "$1" | sha256sum`),
	} {
		for _, before := range []int{0, 1, block - 10, block, 2*block + 100} {
			in := append(bytes.Repeat([]byte{0}, before), text...)
			in = append(in, make([]byte, 5000)...)
			hits, n, err := s.In(iotest.HalfReader(bytes.NewReader(in)))
			if err != nil || n != int64(len(in)) || len(hits.Of("x")) == 0 || len(hits.Of("another")) > 0 {
				t.Errorf("%s after %d bytes: %v, read %d, %v", name, before, hits, n, err)
			}
		}
	}
	noise := make([]byte, 3*block)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	if hits, _, err := s.In(bytes.NewReader(noise)); err != nil || len(hits) > 0 {
		t.Errorf("in noise: %v, %v", hits, err)
	}
}

// TestMemory finds a canary in a process: in its memory, its arguments, its
// environment, and a file that has no name any longer.
func TestMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("reads the memory of processes: run as root")
	}
	for name, script := range map[string]string{
		"memory":      `read -r x; y=$x$x; echo ready; read -r z`,
		"file":        `read -r x; exec 5<>"$1"/gone; rm "$1"/gone; tr a-z A-Z <<<"$x" >&5; unset x; echo ready; read -r z`,
		"nothing":     `read -r x <&-; echo ready; read -r z; read -r z`,
		"environment": `echo ready; read -r z; read -r z`,
	} {
		t.Run(name, func(t *testing.T) {
			c := NewCanary("x", "")
			cmd := exec.Command("bash", "-c", script, "x", t.TempDir())
			if name == "environment" {
				cmd.Env = append(os.Environ(), "CANARY="+c.Value)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }()
			if name != "nothing" {
				if _, err := in.Write([]byte(c.Value + "\n")); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := out.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			p := Process{PID: cmd.Process.Pid}
			hits, read, err := NewLook(NewSearch(c)).At(p)
			if err != nil || read < 1<<20 {
				t.Errorf("read %d bytes: %v", read, err)
			}
			if name == "file" {
				if hits, _, err = NewLook(NewSearch(c)).files(p); err != nil {
					t.Error(err)
				}
			}
			if want := name != "nothing"; (len(hits) > 0) != want {
				t.Errorf("found %v", hits)
			}
		})
	}
}

// TestUnpacked finds canaries in what is packed, more than once.
func TestUnpacked(t *testing.T) {
	c := NewCanary("x", "")
	dir := t.TempDir()
	if out, err := exec.Command("bash", "-c", `seq 9999 | gzip | head -c 999 > "$1"`, "x", dir+"/f").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for atWork, want := range map[bool]bool{true: true, false: false} {
		if _, _, err := NewSearch(c).Tree(dir, atWork); (err == nil) != want {
			t.Errorf("half a file, while a build is at work %t: %v", atWork, err)
		}
	}
	for name, script := range map[string]string{
		"plain": `printf %s "$1"`, "gzip": `printf %s "$1" | gzip`, "zstd": `printf %s "$1" | zstd -q`,
		"twice": `printf %s "$1" | gzip | zstd -q`, "xz": `printf %s "$1" | xz`, "none": `echo none | gzip`,
	} {
		cmd := exec.Command("bash", "-c", script+` > "$2"`, "x", strings.Repeat(c.Value+"\n", 3), dir+"/f")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		found, files, err := NewSearch(c).Tree(dir, false)
		if err != nil || files != 1 || (len(found) > 0) != (name != "none") {
			t.Errorf("%s: %v in %d files, %v", name, found, files, err)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	noise := make([]byte, 16*block)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	copy(noise[8*block:], make([]byte, 4*block))
	s := NewSearch(NewCanary("a", "u"), NewCanary("b", "u"), NewCanary("c", ""), NewCanary("d", ""), NewCanary("e", ""), NewCanary("f", ""))
	b.SetBytes(int64(len(noise)))
	for b.Loop() {
		if _, _, err := s.In(bytes.NewReader(noise)); err != nil {
			b.Fatal(err)
		}
	}
}
