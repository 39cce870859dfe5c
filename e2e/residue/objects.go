package main

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ipcKey is the key of the System V objects.
const ipcKey = 0x7265736

// objects are things of the kernel that have names of their own.
func objects() []kind {
	return []kind{
		left("a System V shared memory", ipc(unix.SYS_SHMGET, ipcKey, 4096, unix.IPC_CREAT|0o600), hasIPC(unix.SYS_SHMGET, ipcKey, 0, 0)),
		left("a System V semaphore", ipc(unix.SYS_SEMGET, ipcKey, 1, unix.IPC_CREAT|0o600), hasIPC(unix.SYS_SEMGET, ipcKey, 0, 0)),
		left("a System V message queue", ipc(unix.SYS_MSGGET, ipcKey, unix.IPC_CREAT|0o600, 0), hasIPC(unix.SYS_MSGGET, ipcKey, 0, 0)),
		left("a POSIX message queue", func() error { return openQueue(unix.O_CREAT | unix.O_RDWR) }, func() bool { return openQueue(unix.O_RDWR) == nil }),
		barred("a key", addKey, hasKey),
		barred("the host name", func() error { return unix.Sethostname([]byte("residue")) }, func() bool {
			var u unix.Utsname
			return unix.Uname(&u) == nil && unix.ByteSliceToString(u.Nodename[:]) == "residue"
		}),
	}
}

func ipc(nr, a, b, c uintptr) func() error {
	return func() error {
		if _, _, e := unix.Syscall(nr, a, b, c); e != 0 {
			return e
		}
		return nil
	}
}

func hasIPC(nr, a, b, c uintptr) func() bool {
	try := ipc(nr, a, b, c)
	return func() bool { return try() == nil }
}

func openQueue(flags int) error {
	name, err := unix.BytePtrFromString("residue")
	if err != nil {
		return err
	}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), uintptr(flags), 0o600, 0, 0, 0)
	if e != 0 {
		return e
	}
	return unix.Close(int(fd))
}

func addKey() error {
	_, err := unix.AddKey("user", "residue", []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
	return err
}

func hasKey() bool {
	_, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "residue", 0)
	return err == nil && !errors.Is(err, unix.ENOKEY)
}
