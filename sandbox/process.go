package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// maxTail is how much of what the executor prints is kept, in bytes. It prints
// nothing but a panic.
const maxTail = 16 << 10

// running is a sandbox that was started.
type running struct {
	conn *os.File // the launcher's end of the channel
	l    layout
	m    mode
	// walls are what was promised and has to be found before anything is built.
	walls walls

	gate  *gate // nil: it has no network
	hold  *hold
	sink  request.Sink
	tail  *copyTail
	pipes sync.WaitGroup
	done  chan struct{} // closed when runsc has ended
	exit  error         // how, valid after done
}

// start starts runsc for l's role behind a gateway of its own.
func start(c Config, l layout, m mode) (_ *running, err error) {
	flags := runsc.Table(l.settings(c, m))
	s, err := lintBundle(c, l, m, flags)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() // else its end would never be seen
	r, w, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer w.Close()
	p := &running{
		conn: ours, l: l, m: m, walls: newWalls(c, l, m, s, flags), hold: c.hold, sink: c.Sink, tail: &copyTail{size: maxTail}, done: make(chan struct{}),
	}
	cmd := c.Runsc.Command(runsc.Start{
		Flags: flags, Bundle: l.bundle, ID: containerID,
		Pass: theirs, Stdout: w, Stderr: w, Userns: m == modeUser,
	})
	if err := p.connect(c, cmd); err != nil {
		ours.Close()
		r.Close()
		return nil, err
	}
	p.pipes.Go(func() {
		defer r.Close()
		_, _ = io.Copy(p.tail, r)
	})
	return p, nil
}

// self is this program's own file, which makes the link before it becomes runsc.
const self = "/proc/self/exe"

// connect starts cmd, with a gateway at the other end of its link, if it is to
// have a network.
func (p *running) connect(c Config, cmd *exec.Cmd) error {
	role := p.l.role
	if c.Network.none(role) {
		if err := p.launch(cmd); err != nil {
			return startError(err, p.m)
		}
		return nil
	}
	link, err := gateway.Through(cmd, self)
	if err != nil {
		return networkError(err)
	}
	defer link.Close()
	if err := p.launch(cmd); err != nil {
		return startError(err, p.m)
	}
	end, err := link.Link()
	if err == nil {
		if p.gate, err = openGate(c, role, end); err != nil {
			end.Close()
		}
	}
	if err == nil {
		err = link.Go()
	}
	if err != nil {
		link.Close()
		<-p.done // it ends where nobody lets it go on
		return networkError(errors.Join(err, p.gate.close()))
	}
	return nil
}

// networkError is a link or a gateway that cannot be had.
func networkError(err error) error {
	return &WallError{Wall: "network", Msg: "the sandbox cannot get one of its own", Hint: doctorHint, Err: err}
}

// launch starts cmd on a thread of its own and keeps the thread until cmd has
// ended: the kernel kills the sandbox when the thread that started it dies, and
// Go ends idle threads.
func (p *running) launch(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.startHeld(cmd)
		if err == nil {
			p.walls.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.exit = cmd.Wait()
			close(p.done)
		}
	}()
	return <-started
}

// startHeld starts cmd within the limits of the run, on the calling thread.
func (p *running) startHeld(cmd *exec.Cmd) error {
	detach, err := p.hold.attach(cmd)
	if err != nil {
		return err
	}
	// Where the thread cannot leave the group again, the group cannot be removed,
	// which is told.
	defer func() { _ = detach() }()
	return cmd.Start()
}

// startError explains why the kernel did not start runsc.
func startError(err error, m mode) error {
	if wall := new(WallError); errors.As(err, &wall) {
		return wall
	}
	for _, e := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL} {
		if m == modeUser && errors.Is(err, e) {
			return &WallError{Wall: "user namespace", Msg: "this machine does not let this user make one", Hint: doctorHint, Err: err}
		}
	}
	return &WallError{Wall: "gVisor", Msg: "runsc could not be started", Hint: doctorHint, Err: err}
}

// end waits up to grace for the sandbox to end, then kills it, and returns when
// it is gone.
func (p *running) end(ctx context.Context, state string, grace time.Duration) {
	select {
	case <-p.done:
	case <-time.After(grace):
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goneIn)
	defer cancel()
	// Whatever does not die here is told when the work directory is removed,
	// which does the same again.
	if runsc.Kill(ctx, state) == nil {
		<-p.done
		p.pipes.Wait()
	}
	p.conn.Close()
	if err := p.gate.close(); err != nil {
		warn(p.sink, "gateway: "+err.Error())
	}
}

// explain adds to an error of the session what is known about the sandbox.
func (p *running) explain(err error, started bool) error {
	var wall *WallError
	var space *SpaceError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &space):
		return err
	case errors.As(err, &wall):
		wall.Log = p.report()
		return err
	}
	log := p.report()
	if errors.Is(err, errNoResult) && !started && log != "" {
		return p.startFailure(log)
	}
	e := &EndError{Msg: "the sandbox of " + string(p.l.role) + " broke", Status: p.status(), Output: p.tail.text(), Log: log, Err: err}
	switch {
	case errors.Is(err, errNoResult):
		e.Msg, e.Err = fmt.Sprintf("%s: %v", p.l.role, errNoResult), nil
		e.Hint = p.endHint()
	case errors.Is(err, request.ErrFrame), errors.Is(err, errOutput):
		e.Msg, e.Status = fmt.Sprintf("%s: the executor broke the protocol", p.l.role), ""
	}
	return e
}

// startFailure is runsc's own refusal to start a sandbox.
func (p *running) startFailure(log string) error {
	e := &WallError{Wall: "gVisor", Msg: "the sandbox did not start", Hint: doctorHint, Log: log}
	has := func(text string) bool { return strings.Contains(log, text) }
	switch {
	case has("ptrace"), has("systrap: unable to attach"):
		e.Wall, e.Msg = "ptrace", "gVisor needs it, and this machine forbids it"
	case has("fork/exec /proc/self/exe: operation not permitted"), has("fork/exec /proc/self/exe: no space left"):
		e.Wall, e.Msg = "user namespace", "gVisor cannot make one here"
	case has("no space left on device"):
		e.Msg = "the sandbox did not start: the disk is full"
		e.Hint = "use a work directory on a larger disk"
	}
	return e
}

func (p *running) endHint() string {
	var exit *exec.ExitError
	if errors.As(p.exit, &exit) && (exit.ExitCode() == 128+int(syscall.SIGKILL) || !exit.Exited()) {
		return "something killed it: was the machine out of memory?"
	}
	if free, err := freeSpace(p.l.dir); err == nil && free < margin/4 {
		return "the disk of the work directory is full"
	}
	return ""
}

// status says how runsc ended.
func (p *running) status() string {
	select {
	case <-p.done:
	default:
		return "still running"
	}
	if p.exit == nil {
		return "exit status 0"
	}
	return p.exit.Error()
}

// report returns what gVisor wrote about its failure, or "".
func (p *running) report() string {
	var parts []string
	if b, err := readHead(p.l.log); err == nil {
		dec := json.NewDecoder(strings.NewReader(b))
		for {
			var line struct{ Msg string }
			if dec.Decode(&line) != nil {
				break
			}
			parts = append(parts, strings.TrimSpace(line.Msg))
		}
	}
	if b, err := readHead(p.l.panics); err == nil && b != "" {
		parts = append(parts, strings.TrimSpace(b))
	}
	return printable(strings.Join(parts, "\n"))
}

// readHead reads the beginning of a report.
func readHead(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTail))
	return string(b), err
}
