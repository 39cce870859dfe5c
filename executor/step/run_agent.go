package step

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// maxClients is how many connections of a command are served at the same
	// time; further ones wait.
	maxClients = 16
	// agentFailure is the reply that says no (draft-miller-ssh-agent, section
	// 5.1).
	agentFailure = 5
)

// askAgent sends a message to an agent and returns the reply, both without
// their length.
type askAgent func(ctx context.Context, message []byte) (reply []byte, err error)

// addAgent lends the command an SSH agent: a socket, served for as long as the
// command lives. The variable is set where there is no agent too, as in
// BuildKit.
func (r *run) addAgent(ctx context.Context, m plan.Mount) error {
	if m.Env != "" {
		if err := r.setVariable(m.Env, []byte(m.Target)); err != nil {
			return fmt.Errorf("SSH agent %s: %w", m.ID, err)
		}
	}
	var ask askAgent
	if r.env.Agent != nil {
		ask = r.env.Agent(m.ID)
	}
	switch {
	case ask == nil && m.Required:
		return &NotLentError{Msg: fmt.Sprintf("no SSH key %q forwarded from the client", m.ID), Flag: "--ssh " + m.ID}
	case ask == nil:
		return nil
	}
	dir, err := r.mkdir()
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "agent")
	listener, err := listen(dir)
	if err != nil {
		return fmt.Errorf("SSH agent %s: %w", m.ID, err)
	}
	stop := serveAgent(ctx, listener, ask)
	r.undo = append(r.undo, stop)
	if err := os.Chown(socket, int(*m.UID), int(*m.GID)); err != nil {
		return fmt.Errorf("SSH agent %s: %w", m.ID, err)
	}
	if err := unix.Chmod(socket, *m.Mode&0o777); err != nil {
		return fmt.Errorf("SSH agent %s: %w", m.ID, err)
	}
	r.config.Mounts = append(r.config.Mounts, childMount{Source: socket, Target: m.Target})
	return nil
}

// listen makes the socket "agent" in dir. The name of a socket may have about a
// hundred bytes only: it is named by the directory's descriptor.
func listen(dir string) (*net.UnixListener, error) {
	fd, err := beneath.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: descriptor(fd) + "/agent", Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by that name; it goes with dir
	return l, nil
}

// serveAgent serves what connects to l until stop is called, which returns when
// nothing of it is left.
func serveAgent(ctx context.Context, l *net.UnixListener, ask askAgent) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	places := make(chan struct{}, maxClients)
	wg.Go(func() {
		for {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			conn, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // the client is gone, or there are no descriptors left
				<-places
				time.Sleep(10 * time.Millisecond)
				continue
			}
			wg.Go(func() {
				defer func() { <-places }()
				serveClient(ctx, conn, ask)
			})
		}
	})
	return func() error {
		cancel()
		err := l.Close()
		wg.Wait()
		return err
	}
}

// serveClient answers one connection, a message after the other. What is no
// message ends it.
func serveClient(ctx context.Context, conn net.Conn, ask askAgent) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		message, err := request.ReadAgentMessage(conn)
		if err != nil {
			return
		}
		reply, err := ask(ctx, message)
		if err != nil || len(reply) > request.MaxAgentMessage {
			reply = []byte{agentFailure}
		}
		if _, err := conn.Write(request.AgentMessage(reply)); err != nil {
			return
		}
	}
}
