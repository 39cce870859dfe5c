package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// interval is how often memory is looked at, or more seldom: looking at many processes
// of many mappings takes some ten milliseconds, and that is to be a hundredth of the time
// at most. What is measured has many of them with us, and few with the peer.
const (
	interval = 300 * time.Millisecond
	share    = 100
)

// watch sums up the memory of this process's descendants, but for the registry,
// until done is closed, and sends the largest sum, and the largest growth on disk.
func (b *bench) watch(done <-chan struct{}, peak chan<- sample) {
	var most sample
	disk := b.diskUsed()
	pause := interval
	for {
		select {
		case <-done:
			peak <- most
			return
		case <-time.After(pause):
			began := time.Now()
			var sum int64
			for _, pid := range descendants(os.Getpid(), b.registry.PID()) {
				sum += memoryOf(pid)
			}
			most.memory, most.disk = max(most.memory, sum), max(most.disk, b.diskUsed()-disk)
			pause = max(interval, share*time.Since(began))
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
