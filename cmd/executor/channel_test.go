package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// withLauncher is a channel to a launcher that answers what answer says; nil is
// no answer. hangUp ends the launcher.
func withLauncher(t *testing.T, answer func(request.Ask) *request.Answer) (c *channel, hangUp func()) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "executor"), os.NewFile(uintptr(fds[1]), "launcher")
	hangUp = sync.OnceFunc(func() {
		_ = unix.Shutdown(fds[1], unix.SHUT_RDWR)
	})
	t.Cleanup(func() {
		hangUp()
		ours.Close()
		theirs.Close()
	})
	go func() {
		r, w := request.NewReader(theirs), request.NewWriter(theirs)
		for {
			_, payload, err := r.Next()
			if err != nil {
				return
			}
			var ask request.Ask
			if err := json.Unmarshal(payload, &ask); err != nil {
				t.Error(err)
			}
			go func() {
				if a := answer(ask); a != nil {
					a.ID = ask.ID
					_ = w.WriteJSON(request.FrameAnswer, a)
				}
			}()
		}
	}()
	return newChannel(ours, func() {}), hangUp
}

func TestChannelSecretAndAgent(t *testing.T) {
	largest := make([]byte, request.MaxSecret)
	c, _ := withLauncher(t, func(ask request.Ask) *request.Answer {
		switch {
		case ask.Scope == request.Secret && ask.Name == "s" && ask.Data == nil:
			return &request.Answer{Data: largest}
		case ask.Scope == request.Agent && ask.Name == "a":
			return &request.Answer{Data: append(ask.Data, 'r')}
		}
		return &request.Answer{Error: "no"}
	})
	if got, err := c.Secret(t.Context(), "s"); err != nil || !slices.Equal(got, largest) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := c.Agent(t.Context(), "a", []byte("m")); err != nil || string(got) != "mr" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := c.Secret(t.Context(), "x"); err == nil || err.Error() != "no" || got != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestChannelGivesUp: a step that ends does not wait for an agent's answer, nor
// does one whose launcher is gone.
func TestChannelGivesUp(t *testing.T) {
	asked := make(chan struct{}, 2)
	c, hangUp := withLauncher(t, func(request.Ask) *request.Answer {
		asked <- struct{}{}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Agent(ctx, "a", []byte{11}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(c.waiting) > 0 || len(c.agents) > 0 {
		t.Errorf("%d wait still, %d places are taken", len(c.waiting), len(c.agents))
	}
	go func() {
		<-asked
		hangUp()
	}()
	if _, err := c.Secret(t.Context(), "s"); !errors.Is(err, errLauncherGone) {
		t.Error(err)
	}
	if _, err := c.Secret(t.Context(), "s"); !errors.Is(err, errLauncherGone) {
		t.Error(err)
	}
}

// TestChannelAgentsAtOnce: more messages than the launcher takes at once wait here.
func TestChannelAgentsAtOnce(t *testing.T) {
	var now, most atomic.Int32
	c, _ := withLauncher(t, func(request.Ask) *request.Answer {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(20 * time.Millisecond)
		now.Add(-1)
		return &request.Answer{}
	})
	var wg sync.WaitGroup
	for range 3 * request.MaxAgentsAtOnce {
		wg.Go(func() {
			if _, err := c.Agent(t.Context(), "a", []byte{11}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > request.MaxAgentsAtOnce || most.Load() < 2 {
		t.Errorf("%d at once", most.Load())
	}
}
