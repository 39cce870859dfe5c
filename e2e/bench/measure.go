package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func (b *bench) ours(ctx context.Context, dir, tmp, dest string) (sample, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "kbuild-sandbox"), "build", "--progress", "plain",
		"--insecure-registry", b.registry.Host, "-t", dest, dir)
	return b.timed(cmd, tmp)
}

func (b *bench) buildah(ctx context.Context, dir, tmp, dest string) (sample, error) {
	root := filepath.Join(tmp, "root")
	store := []string{"--root", root, "--runroot", filepath.Join(tmp, "runroot"), "--storage-driver", "overlay"}
	defer func() {
		// buildah leaves its storage directory mounted on itself.
		unix.Unmount(filepath.Join(root, "overlay"), unix.MNT_DETACH)
		os.RemoveAll(root)
		os.RemoveAll(filepath.Join(tmp, "runroot"))
	}()
	bud := exec.CommandContext(ctx, "buildah", append(store, "bud", "--isolation", "chroot", "--layers",
		"--tls-verify=false", "-t", dest, dir)...)
	s, err := b.timed(bud, tmp)
	if err != nil {
		return s, err
	}
	push := exec.CommandContext(ctx, "buildah", append(store, "push", "--tls-verify=false", dest)...)
	p, err := b.timed(push, tmp)
	if err != nil {
		return s, err
	}
	for _, d := range []string{"buildah", "containers", "storage"} { // what it drops into $TMPDIR
		matches, _ := filepath.Glob(filepath.Join(tmp, d+"*"))
		for _, m := range matches {
			os.RemoveAll(m)
		}
	}
	return sample{s.wall + p.wall, max(s.memory, p.memory)}, nil
}

// timed runs a command and watches the memory of all its process tree.
func (b *bench) timed(cmd *exec.Cmd, tmp string) (sample, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "XDG_CACHE_HOME="+filepath.Join(b.tmp, "cache"))
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	done := make(chan struct{})
	peak := make(chan int64)
	go watch(b.registry.PID(), done, peak)
	err := cmd.Wait()
	wall := time.Since(begin)
	close(done)
	memory := <-peak
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
	}
	return sample{wall, memory}, nil
}

// interval is how often memory is looked at: reading it costs some
// milliseconds for a process of many mappings.
const interval = 300 * time.Millisecond

// watch sums up the memory of this process's descendants, but for one child,
// until done is closed, and sends the largest sum.
func watch(except int, done <-chan struct{}, peak chan<- int64) {
	var most int64
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			peak <- most
			return
		case <-tick.C:
			var sum int64
			for _, pid := range descendants(os.Getpid(), except) {
				sum += memoryOf(pid)
			}
			most = max(most, sum)
		}
	}
}

func descendants(root, except int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if parent, err := strconv.Atoi(fields[1]); err == nil && pid != except {
			children[parent] = append(children[parent], pid)
		}
	}
	var out []int
	todo := children[root]
	for len(todo) > 0 {
		pid := todo[0]
		out = append(out, pid)
		todo = append(todo[1:], children[pid]...)
	}
	return out
}

// memoryOf is a process's share of anonymous and shared memory, in bytes.
func memoryOf(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	var sum int64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] != "Pss_Anon:" && w[0] != "Pss_Shmem:" {
			continue
		}
		kb, err := strconv.ParseInt(w[1], 10, 64)
		if err == nil {
			sum += kb << 10
		}
	}
	return sum
}
