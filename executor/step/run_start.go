package step

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// maxReport bounds what the child says about its failure, in bytes.
	maxReport = 64 << 10
	// drainTime is how long output that is still in the pipes is waited for
	// when the command has ended. All processes are gone then, so this never
	// passes but where the end of one is late.
	drainTime = 2 * time.Second
)

// report is what the child says when the command could not be started.
type report struct {
	What  string
	Errno syscall.Errno
	// Wall is one that is not in force.
	Wall *WallError
	// Exec: the walls were up, the command itself, which is File, could not be
	// executed.
	Exec bool
	File string
}

// execute starts the child in new namespaces and waits for the command. When
// it returns every process of the command is gone.
func (r *run) execute(ctx context.Context) error {
	self := r.env.Self
	if self == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("start command: %w", err)
		}
		self = exe
	}
	var p pipes
	defer p.close()
	if err := p.open(); err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "run-child")
	cmd.Dir = "/"
	// The child's own; the command gets that of the config. The child lives
	// for milliseconds: further threads and a collector would only cost.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.Stdout, cmd.Stderr = p.outW, p.errW
	cmd.ExtraFiles = []*os.File{p.configR, p.reportW} // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: r.namespaces()}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	// It waits for its config: nothing of it is outside the bound.
	if r.env.Tasks != nil {
		if err := r.env.Tasks.Add(cmd.Process.Pid); err != nil {
			return fmt.Errorf("start command: %w", errors.Join(err, stop(cmd)))
		}
	}
	p.closeChildEnds()
	drained := p.copyOutput(r.env.Output)
	// The child may die before it has read all; it then says why, or Wait does.
	sendErr := gob.NewEncoder(p.configW).Encode(r.config)
	p.configW.Close()
	waitErr := cmd.Wait()
	if err := waitOrphans(); err != nil {
		return err
	}
	p.endOutput()
	drained()
	if err := ctx.Err(); err != nil {
		return err
	}
	if msg, err := io.ReadAll(io.LimitReader(p.reportR, maxReport)); err != nil || len(msg) > 0 {
		return r.failure(msg, err)
	}
	return errors.Join(r.exitError(waitErr), unlessPipe(sendErr))
}

// stop ends a child that has not become the command.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	_ = cmd.Wait() // it was killed
	return nil
}

func (r *run) namespaces() uintptr {
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS)
	if r.op.Network == networkNone {
		flags |= syscall.CLONE_NEWNET
	}
	return flags
}

// failure is what the child reported instead of becoming the command.
func (r *run) failure(msg []byte, err error) error {
	var rep report
	if err == nil {
		err = json.Unmarshal(msg, &rep)
	}
	switch {
	case err != nil:
		return fmt.Errorf("start command: child's report: %w", err)
	case rep.Wall != nil:
		return rep.Wall
	case !rep.Exec:
		return fmt.Errorf("start command: %s: %w", rep.What, rep.Errno)
	}
	code := codeNotExecutable
	if rep.Errno == syscall.ENOENT {
		code = codeNotFound
	}
	cause := fmt.Errorf("%s: %w", rep.What, rep.Errno)
	if rep.Errno == syscall.ENOEXEC {
		if err := foreign(r.config.Root, r.op.Cwd, rep.File); err != nil {
			cause = err
		}
	}
	return &ExitError{Args: r.op.Args, Code: code, Cause: cause}
}

// exitError is how the command ended, from what Wait said.
func (r *run) exitError(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	st, ok := exit.Sys().(syscall.WaitStatus)
	if ok && st.Signaled() {
		sig := int(st.Signal())
		return &ExitError{Args: r.op.Args, Code: codeSignal + sig, Signal: sig}
	}
	return &ExitError{Args: r.op.Args, Code: exit.ExitCode()}
}

// unlessPipe drops the error of writing to a child that is gone.
func unlessPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// pipes are what connects the executor and a child; R ends are read, W written.
type pipes struct {
	configR, configW, reportR, reportW, outR, outW, errR, errW *os.File
}

func (p *pipes) open() error {
	for _, e := range []struct{ r, w **os.File }{
		{&p.configR, &p.configW}, {&p.reportR, &p.reportW}, {&p.outR, &p.outW}, {&p.errR, &p.errW},
	} {
		var err error
		if *e.r, *e.w, err = os.Pipe(); err != nil {
			return err
		}
	}
	return nil
}

// close closes all that is open still.
func (p *pipes) close() {
	for _, f := range []*os.File{p.configR, p.configW, p.reportR, p.reportW, p.outR, p.outW, p.errR, p.errW} {
		if f != nil {
			f.Close()
		}
	}
}

func (p *pipes) closeChildEnds() {
	for _, f := range []*os.File{p.configR, p.reportW, p.outW, p.errW} {
		f.Close()
	}
}

// copyOutput passes on what comes in; the function it returns waits for the end.
func (p *pipes) copyOutput(output func(stream int, data []byte)) (wait func()) {
	var wg sync.WaitGroup
	for i, f := range []*os.File{p.outR, p.errR} {
		wg.Go(func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := f.Read(buf)
				if n > 0 && output != nil {
					output(i+1, buf[:n])
				}
				if err != nil {
					return
				}
			}
		})
	}
	return wg.Wait
}

// endOutput bounds the wait for the end of the output.
func (p *pipes) endOutput() {
	deadline := time.Now().Add(drainTime)
	for _, f := range []*os.File{p.outR, p.errR, p.reportR} {
		// It cannot fail: these are pipes.
		_ = f.SetReadDeadline(deadline)
	}
}
