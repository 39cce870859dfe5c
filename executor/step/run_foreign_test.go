package step

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// elfHead is the beginning of an ELF program: class 1 is 32 bits, 2 is 64; data
// 1 is little-endian, 2 is big.
func elfHead(class, data byte, machine uint16) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF")
	b[4], b[5] = class, data
	b[18], b[19] = byte(machine), byte(machine>>8)
	if data == 2 {
		b[18], b[19] = b[19], b[18]
	}
	return string(b)
}

func TestArchOf(t *testing.T) {
	for head, want := range map[string]string{
		elfHead(2, 1, 62): "amd64", elfHead(1, 1, 3): "386", elfHead(2, 1, 183): "arm64", elfHead(1, 1, 40): "arm",
		elfHead(2, 1, 243): "riscv64", elfHead(1, 1, 243): "EM_RISCV", elfHead(2, 2, 22): "s390x", elfHead(2, 1, 21): "ppc64le",
		elfHead(2, 2, 21): "EM_PPC64", elfHead(2, 1, 258): "loong64", elfHead(1, 2, 8): "EM_MIPS",
		"": "", "\x7fELF": "", "#!/bin/sh\n": "", strings.Repeat("x", 64): "",
	} {
		if got := archOf([]byte(head)); got != want {
			t.Errorf("%q: %q, want %q", head[:min(20, len(head))], got, want)
		}
	}
}

// TestForeign looks for the program that a stage cannot run, through links and
// interpreters, and never outside the stage.
func TestForeign(t *testing.T) {
	other, arch := elfHead(2, 1, 183), "arm64"
	if runtime.GOARCH == arch {
		other, arch = elfHead(2, 1, 62), "amd64"
	}
	outside := filepath.Join(t.TempDir(), "other")
	root := t.TempDir()
	for name, content := range map[string]string{
		"bin/other": other, "bin/script": "#! /bin/other -x\n", "bin/outer": "#!/bin/script\n", "bin/relative": "#!other\n",
		"bin/loop": "#!/bin/loop\n", "bin/gone": "#!/nothing\n", "bin/empty": "#!\n", "bin/text": "echo\n",
		"bin/long": "#!/" + strings.Repeat("x", 1000), "dir/in": other,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside, []byte(other), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"sh": "bin/other", "up": "../../../bin/other", "abs": "/dir/in", "escape": outside, "usr": "bin", "self": "self",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"/bin/other": "/bin/other", "/sh": "/sh", "/up": "/up", "/abs": "/abs", "/usr/other": "/usr/other", "other": "/bin/other",
		"./other": "/bin/other", "/bin/script": "/bin/other", "/bin/outer": "/bin/other", "/bin/relative": "/bin/other",
		"/bin/loop": "", "/bin/gone": "", "/bin/empty": "", "/bin/text": "", "/bin/long": "", "/bin": "", "/escape": "", "/self": "", "/none": "",
	} {
		err := foreign(root, "/bin", file)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", file, err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), want+" is a program for "+arch+", and this sandbox")):
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}
