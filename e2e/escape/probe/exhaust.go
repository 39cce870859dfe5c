package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// exhaustTries are those that use up what there is.
func exhaustTries() map[string]try {
	return map[string]try{"forks": forks, "handles": manyDescriptors, "fill": fillMemory, "flood": flood, "sleep": sleeper, "tree": tree}
}

func number(args []string, i int) int {
	n, err := strconv.Atoi(args[i])
	if err != nil {
		fail(err.Error())
	}
	return n
}

// sleeper ignores what would end it.
func sleeper([]string) (string, string) {
	time.Sleep(time.Hour)
	return escaped, "nobody has ended it"
}

// tree makes so many directories, each in the one before, and so many files.
func tree(args []string) (string, string) {
	if err := errors.Join(os.Mkdir("/many", 0o755), os.Mkdir("/deep", 0o755), os.Chdir("/deep")); err != nil {
		return "ERROR", err.Error()
	}
	for n := range number(args, 0) {
		if err := errors.Join(os.Mkdir("d", 0o755), os.Chdir("d")); err != nil {
			return limited, fmt.Sprintf("after %d directories: %v", n, err)
		}
	}
	for n := range number(args, 1) {
		if err := os.WriteFile(fmt.Sprintf("/many/%d", n), nil, 0o644); err != nil {
			return limited, fmt.Sprintf("after %d files: %v", n, err)
		}
	}
	return contained, "all made"
}

// forks starts processes, each in a session of its own, until there are no more,
// or so many.
func forks(args []string) (string, string) {
	most := number(args, 0)
	for n := range most {
		cmd := exec.Command("/bin/sleep", "60")
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return limited, fmt.Sprintf("after %d processes: %v", n, err)
		}
	}
	return escaped, fmt.Sprintf("%d processes", most)
}

// manyDescriptors opens what takes a descriptor, until there are no more, or so many.
func manyDescriptors(args []string) (string, string) {
	most := number(args, 0)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return "ERROR", err.Error()
	}
	limit.Cur = limit.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // what there is is found out below
	openers := map[string]func() (int, error){
		"directory": func() (int, error) { return unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0) },
		"epoll":     func() (int, error) { return unix.EpollCreate1(0) },
		"inotify":   func() (int, error) { return unix.InotifyInit1(0) },
		"socket":    func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0) },
		"memfd":     func() (int, error) { return unix.MemfdCreate("x", 0) },
	}
	var said []string
	outcome := contained
	for name, open := range openers {
		var fds []int
		var err error
		for len(fds) < most && err == nil {
			var fd int
			if fd, err = open(); err == nil {
				fds = append(fds, fd)
			}
		}
		if err != nil {
			outcome = limited
		}
		said = append(said, fmt.Sprintf("%d of %s (%v)", len(fds), name, err))
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	return outcome, strings.Join(said, ", ")
}

// fillMemory touches so many MiB.
func fillMemory(args []string) (string, string) {
	var all [][]byte
	for n := range number(args, 0) {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return limited, fmt.Sprintf("after %d MiB: %v", n, err)
		}
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		all = append(all, b)
	}
	return escaped, fmt.Sprintf("%d MiB", len(all))
}

// flood connects so often, many at once, to each of the addresses, and sends
// datagrams there.
func flood(args []string) (string, string) {
	var reached, failed, sent atomic.Int64
	var group sync.WaitGroup
	slots := make(chan bool, 500)
	for range number(args, 0) {
		for _, address := range args[1:] {
			slots <- true
			group.Go(func() {
				defer func() { <-slots }()
				conn, err := net.DialTimeout("tcp", address, 5*time.Second)
				if err != nil {
					failed.Add(1)
				} else {
					reached.Add(1)
					conn.Close()
				}
				if c, err := net.Dial("udp", address); err == nil {
					_, err = c.Write([]byte("flood"))
					if err == nil || errors.Is(err, unix.ECONNREFUSED) {
						sent.Add(1)
					}
					c.Close()
				}
			})
		}
	}
	group.Wait()
	return contained, fmt.Sprintf("%d connections reached somebody, %d did not, %d datagrams were sent", reached.Load(), failed.Load(), sent.Load())
}
