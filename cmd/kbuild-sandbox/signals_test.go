package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBrokenPipeOfSandbox: a sandbox that ended while we wrote to it ends nothing
// else, though it is the same signal as that of a reader of ours that went away.
func TestBrokenPipeOfSandbox(t *testing.T) {
	ctx, stop := withSignals(t.Context())
	defer stop()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	channel := os.NewFile(uintptr(fds[0]), "channel")
	defer channel.Close()
	unix.Close(fds[1])
	if _, err := channel.Write([]byte("x")); err == nil {
		t.Fatal("the other end is gone, and nobody says so")
	}
	select {
	case <-ctx.Done():
		t.Error("the build was ended")
	case <-time.After(100 * time.Millisecond):
	}
}
