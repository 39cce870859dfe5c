package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
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

// frames is a channel whose frames a test reads, and the writer to it.
func frames(t *testing.T) (*channel, *request.Reader, *request.Writer) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "executor"), os.NewFile(uintptr(fds[1]), "launcher")
	t.Cleanup(func() {
		_ = unix.Shutdown(fds[1], unix.SHUT_RDWR)
		ours.Close()
		theirs.Close()
	})
	return newChannel(ours, func() {}), request.NewReader(theirs), request.NewWriter(theirs)
}

// TestChannelStreams: several outputs cross at once, each with its bytes and its
// end, and a frame that keeps a blob opens none.
func TestChannelStreams(t *testing.T) {
	c, r, _ := frames(t)
	const each = 3*request.MaxChunk/2 + 7
	go func() {
		var wg sync.WaitGroup
		for i := range 3 * request.MaxStreams {
			wg.Go(func() {
				w, err := c.Open(request.Output{Kind: request.OutputStored})
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					_, err = w.Write(bytes.Repeat([]byte{byte(i)}, each))
					err = errors.Join(err, w.Commit(fmt.Sprint("digest ", i)))
				}
				if err := errors.Join(err, w.Close(), w.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := c.Keep(request.Output{Kind: request.OutputKeep, Digest: "sha256:x"}); err != nil {
			t.Error(err)
		}
	}()
	got := map[uint32][]byte{}
	for ended := 0; ; {
		kind, payload, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case request.FrameOutput:
			var what request.Output
			if err := request.Decode(kind, payload, &what); err != nil {
				t.Fatal(err)
			}
			if what.Kind == request.OutputKeep {
				if ended != 3*request.MaxStreams || len(got) > 0 || what.Digest != "sha256:x" {
					t.Errorf("%d ended, %d are open, %+v", ended, len(got), what)
				}
				return
			}
			if _, ok := got[what.Stream]; ok || len(got) >= request.MaxStreams {
				t.Fatalf("stream %d of %d", what.Stream, len(got))
			}
			got[what.Stream] = []byte{}
		case request.FrameChunk:
			stream, p, err := request.Chunk(payload)
			if err != nil {
				t.Fatal(err)
			}
			got[stream] = append(got[stream], p...)
		case request.FrameEnd:
			var e request.OutputEnd
			if err := request.Decode(kind, payload, &e); err != nil {
				t.Fatal(err)
			}
			data := got[e.Stream]
			whole := len(data) == each && e.Digest == fmt.Sprint("digest ", data[0]) && bytes.Count(data, data[:1]) == each
			if e.Dropped == whole || e.Dropped && (len(data) > 0 || e.Digest != "") {
				t.Errorf("%d bytes, %+v", len(data), e)
			}
			delete(got, e.Stream)
			ended++
		}
	}
}

// TestChannelNamesTheImage: push waits for it, and takes one; it hears of layers before.
func TestChannelNamesTheImage(t *testing.T) {
	c, _, w := frames(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	layer := request.Descriptor{Digest: "sha256:y", Size: 5}
	want := request.Pushing{Descriptor: request.Descriptor{Digest: "sha256:x", Size: 7}, Attached: []request.Attached{{Tag: "t"}}}
	if err := errors.Join(w.WriteJSON(request.FrameAhead, layer), w.WriteJSON(request.FramePush, want)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.next(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got := <-c.ahead; got != layer {
		t.Errorf("ahead: %+v", got)
	}
}

// TestResultThatDoesNotFit: the launcher hears why, not nothing.
func TestResultThatDoesNotFit(t *testing.T) {
	c, r, _ := frames(t)
	many := make([]request.Material, 10000)
	for i := range many {
		many[i].URI = fmt.Sprintf("https://example.com/%0100d", i)
	}
	for _, tt := range []struct {
		materials []request.Material
		failed    bool
	}{{many[:10], false}, {many, true}} {
		go func() {
			if err := c.end(request.Result{Version: request.Version, Materials: tt.materials}); err != nil {
				t.Error(err)
			}
		}()
		kind, payload, err := r.Next()
		var got request.Result
		if err == nil {
			err = request.Decode(kind, payload, &got)
		}
		if err != nil || kind != request.FrameResult || (got.Failure != nil) != tt.failed || got.Version != request.Version {
			t.Errorf("%d materials: %q, %+v, %v", len(tt.materials), kind, got.Failure, err)
		}
	}
}

// TestKeychainOfPush: whatever it reads, push asks for what push may have.
func TestKeychainOfPush(t *testing.T) {
	for always, want := range map[request.Scope]request.Scope{"": request.Pull, request.Push: request.Push} {
		var asked request.Ask
		c, _ := withLauncher(t, func(ask request.Ask) *request.Answer {
			asked = ask
			return &request.Answer{Username: "u", Password: "p"}
		})
		_, err := keychain{channel: c, always: always}.Resolve(registry.Target{Host: "h", Repository: "r", Scope: request.Pull})
		if err != nil || asked.Scope != want || asked.Host != "h" || asked.Repository != "r" {
			t.Errorf("%q: %+v, %v", always, asked, err)
		}
	}
}
