package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// maxHeap bounds what the sentry and what the executor may take for a layer of
// any size, in KiB.
const maxHeap = 400 << 10

// TestLayerOf1GiB builds and pushes a layer of 1 GiB that does not compress, and
// watches the sandbox meanwhile: the sentry's own memory is its anonymous pages,
// the executor's is in the sentry's memory file (shared pages that are not the
// workspace's file).
func TestLayerOf1GiB(t *testing.T) {
	bin := binaries(t)
	dir := t.TempDir()
	registry, err := rig.StartRegistry(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Stop()
	pushBases(t.Context(), t, registry)
	work, context := t.TempDir(), t.TempDir()
	put(t, filepath.Join(context, "Dockerfile"), "FROM "+registry.Host+"/library/busybox:1\n"+
		"RUN head -c 1073741824 /dev/urandom >/big\n")
	cmd := exec.Command(filepath.Join(bin, "kbuild-sandbox"), "build", "--insecure-registry", registry.Host,
		"--work-dir", work, "--cache-dir", "", "-d", registry.Host+"/big:1", "--compression-level", "1", "--progress", "plain",
		context)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var sentry, executor int64
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v\n%s", err, out.Bytes())
			}
			running = false
		case <-time.After(200 * time.Millisecond):
			anon, memory := sandboxMemory(t, work)
			sentry, executor = max(sentry, anon), max(executor, memory)
		}
	}
	t.Logf("at most %d MiB in the sentry, %d MiB in the executor and the commands", sentry>>10, executor>>10)
	if sentry == 0 || executor == 0 {
		t.Error("the sandbox was not seen")
	}
	if sentry > maxHeap || executor > maxHeap {
		t.Errorf("more than %d MiB", maxHeap>>10)
	}
}

func put(t *testing.T, file, data string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sandboxMemory sums up, in KiB, the resident memory of the sentry whose command
// line names the work directory: anonymous pages, and pages of its memory file.
func sandboxMemory(t *testing.T, work string) (anon, memory int64) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		line, err := os.ReadFile(d + "/cmdline")
		if err != nil || !bytes.HasPrefix(line, []byte("runsc-sandbox\x00")) || !bytes.Contains(line, []byte(work)) {
			continue
		}
		smaps, err := os.ReadFile(d + "/smaps")
		if err != nil {
			continue // it has ended
		}
		a, m := pages(smaps)
		anon, memory = anon+a, memory+m
	}
	return anon, memory
}

// pages reads /proc/PID/smaps: a header line for each mapping, then its fields.
func pages(smaps []byte) (anon, memory int64) {
	var name string
	var rss int64
	for line := range bytes.Lines(smaps) {
		f := strings.Fields(string(line))
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-") && !strings.HasSuffix(f[0], ":"):
			name = ""
			if len(f) > 5 {
				name = f[5]
			}
		case len(f) == 3 && f[0] == "Rss:":
			rss = number(f[1])
		case len(f) == 3 && f[0] == "Anonymous:":
			anon += number(f[1])
			if strings.HasPrefix(name, "/memfd:runsc-memory") {
				memory += rss
			}
		}
	}
	return anon, memory
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("smaps: %q", s))
	}
	return n
}
