package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ipcKey  = 0x6b62
	ipcSize = 4096
	ipcTime = 2500 * time.Millisecond // how long the two sides meet
)

// holdObjects makes objects that other steps could know by name, and holds them.
func holdObjects(p *probe, _ []string) string {
	id, _, e := unix.Syscall(unix.SYS_SHMGET, ipcKey, ipcSize, unix.IPC_CREAT|0o666)
	if e != 0 {
		fail("shmget: " + e.Error())
	}
	at, _, e := unix.Syscall(unix.SYS_SHMAT, id, 0, 0)
	if e != 0 {
		fail("shmat: " + e.Error())
	}
	copy(unsafe.Slice((*byte)(unsafe.Add(nil, at)), ipcSize), "held")
	if openQueue(unix.O_CREAT|unix.O_RDWR) < 0 {
		fail("mq_open")
	}
	_, err := unix.MemfdCreate("held", 0)
	must(err)
	must(os.WriteFile("/dev/shm/held", []byte("held"), 0o666))
	if ids := sharedMemory(); len(ids) != 1 {
		fail(fmt.Sprint("its own shared memory is not found: ", ids))
	}
	fmt.Println("holds", p.nonce)
	time.Sleep(ipcTime)
	return ""
}

// stealObjects looks for what holdObjects made, as long as both are there.
func stealObjects(p *probe, _ []string) string {
	rounds := 0
	for end := time.Now().Add(ipcTime); time.Now().Before(end); rounds++ {
		if ids := sharedMemory(); len(ids) > 0 {
			p.escape("shared memory %v", ids)
		}
		if _, _, e := unix.Syscall(unix.SYS_SHMGET, ipcKey, 0, 0); e == 0 {
			p.escape("shared memory by its key")
		}
		if openQueue(unix.O_RDWR) >= 0 {
			p.escape("message queue")
		}
		for _, pattern := range []string{"/dev/shm/*", "/dev/mqueue/*", "/proc/[0-9]*/fd/*memfd*"} {
			if found, _ := filepath.Glob(pattern); len(found) > 0 {
				p.escape("%v", found)
			}
		}
		if len(p.out) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.see("looked %d times", rounds)
	return contained
}

// sharedMemory are the ids of System V shared memory that can be attached.
func sharedMemory() []uintptr {
	var ids []uintptr
	for id := range uintptr(256) {
		at, _, e := unix.Syscall(unix.SYS_SHMAT, id, 0, 0)
		if e == 0 {
			ids = append(ids, id)
			_, _, _ = unix.Syscall(unix.SYS_SHMDT, at, 0, 0)
		}
	}
	return ids
}

func openQueue(flags uintptr) int {
	name, err := unix.BytePtrFromString("held")
	must(err)
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), flags, 0o666, 0, 0, 0)
	if e != 0 {
		return -1
	}
	return int(fd)
}
