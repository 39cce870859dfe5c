package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "stopped: " + e.signal.String() }

// sameSignal is how long signals count as the first one: timeout(1) sends one to
// its child and one to the child's group, and a person takes longer.
const sameSignal = time.Second

// withSignals returns a context that the first signal ends, so that everything
// can be tidied up; a second one, which comes later, ends the process. What is then
// left the kernel and the next start remove. A reader of our output that went away
// (SIGPIPE) ends the build, but its repetition is no second signal.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		var first time.Time
		for s := range ch {
			number, _ := s.(syscall.Signal)
			if number == syscall.SIGPIPE && !readersGone() {
				continue // a sandbox that has ended: who writes to it sees the error
			}
			switch {
			case first.IsZero():
				first = time.Now()
			case number != syscall.SIGPIPE && time.Since(first) > sameSignal:
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

// lastWords is what a build that was ended has for telling so.
const lastWords = 2 * time.Second

// endSoon ends the process some time after a build that a signal or its clock has
// ended, even if nobody reads what it has still to say.
func (a *app) endSoon(ctx context.Context, res request.Result, err error) {
	if err == nil && res.Failure != nil {
		err = &buildError{res}
	}
	status := exitCode(ctx, err)
	if ctx.Err() != nil || errors.As(err, new(*buildError)) && res.Failure.Class == request.ClassTimeout {
		a.ending = time.AfterFunc(lastWords, func() { os.Exit(status) })
	}
}
