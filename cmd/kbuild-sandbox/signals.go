package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "stopped: " + e.signal.String() }

// withSignals returns a context that the first signal ends, so that everything
// can be tidied up; a second one ends the process. What is then left the
// kernel and the next start remove. A reader of our output that went away
// (SIGPIPE) ends the build, but its repetition is no second signal.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		for s := range ch {
			number, _ := s.(syscall.Signal)
			if number == syscall.SIGPIPE && !readersGone() {
				continue // a sandbox that has ended: who writes to it sees the error
			}
			if ctx.Err() != nil && number != syscall.SIGPIPE {
				os.Exit(128 + int(number))
			}
			cancel(signalError{number})
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(ch)
		cancel(nil)
	}
}

// readersGone says whether nobody reads our output or errors any more.
func readersGone() bool {
	outputs := []unix.PollFd{{Fd: 1}, {Fd: 2}}
	n, err := unix.Poll(outputs, 0)
	return err != nil || n > 0 && (outputs[0].Revents|outputs[1].Revents)&(unix.POLLERR|unix.POLLHUP) != 0
}
