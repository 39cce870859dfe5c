package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// peer is a session with an executor that the test plays.
type peer struct {
	t    *testing.T
	s    *session
	conn *os.File
	w    *request.Writer
	r    *request.Reader
	end  chan error
}

// standing are walls that stand.
func standing(p request.Posture) (request.RolePosture, error) {
	return request.RolePosture{Inside: p}, nil
}

// serveAsks starts a session of a role, whose build has the secret s and the agent a.
func serveAsks(t *testing.T, role request.Role, answer func(context.Context, request.Ask) request.Answer) *peer {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Sink: noSink{}, Answer: answer, Request: request.Build{Secrets: []string{"s", "GIT_AUTH_TOKEN"}, Agents: []string{"a"}, Source: request.Source{URL: "git@host:x.git"}}}
	p := &peer{
		t: t, conn: theirs, w: request.NewWriter(theirs), r: request.NewReader(theirs), end: make(chan error, 1),
		s: newSession(ours, c, conversation{part: part{role: role}, in: &intake{role: role}}, standing),
	}
	ctx, cancel := context.WithCancel(t.Context())
	// Whoever waits longer waits for ever: both sides are cut off.
	limit := time.AfterFunc(20*time.Second, func() { _ = unix.Shutdown(int(theirs.Fd()), unix.SHUT_RDWR) })
	t.Cleanup(func() {
		limit.Stop()
		cancel()
		ours.Close()
		theirs.Close()
	})
	go func() {
		_, err := p.s.serve(ctx)
		p.end <- err
	}()
	p.send(request.FrameHello, request.Posture{GVisor: true, Seccomp: 2})
	if kind, _, err := p.r.Next(); err != nil || kind != request.FrameGo {
		t.Fatalf("%c, %v", kind, err)
	}
	return p
}

func (p *peer) send(kind request.FrameKind, v any) {
	if err := p.w.WriteJSON(kind, v); err != nil {
		p.t.Error(err)
	}
}

// answer is the next answer.
func (p *peer) answer() (a request.Answer) {
	p.t.Helper()
	kind, payload, err := p.r.Next()
	if err != nil || kind != request.FrameAnswer {
		p.t.Fatalf("%c, %v", kind, err)
	}
	if err := json.Unmarshal(payload, &a); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// TestAskForms: each scope has its own fields, and only what the request lends
// is asked for; whoever asks otherwise is no executor of ours.
func TestAskForms(t *testing.T) {
	const secret, agent = request.Secret, request.Agent
	for name, tt := range map[string]struct {
		ask  request.Ask
		ok   bool
		role request.Role // "": build
	}{
		"push credential":          {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Push}, ok: true, role: request.RolePush},
		"pull credential":          {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Pull}, ok: true, role: request.RoleFetch},
		"build pulls":              {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Pull}},
		"build pushes":             {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Push}},
		"fetch pushes":             {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Push}, role: request.RoleFetch},
		"push pulls":               {ask: request.Ask{Host: "x:5000", Repository: "a/b", Scope: request.Pull}, role: request.RolePush},
		"fetch has a token":        {ask: request.Ask{Scope: secret, Name: "GIT_AUTH_TOKEN"}, ok: true, role: request.RoleFetch},
		"fetch has no others":      {ask: request.Ask{Scope: secret, Name: "s"}, role: request.RoleFetch},
		"fetch has agents by SSH":  {ask: request.Ask{Scope: agent, Name: "a", Data: []byte{11}}, ok: true, role: request.RoleFetch},
		"push has no secrets":      {ask: request.Ask{Scope: secret, Name: "s"}, role: request.RolePush},
		"push has no agents":       {ask: request.Ask{Scope: agent, Name: "a", Data: []byte{11}}, role: request.RolePush},
		"no scope":                 {ask: request.Ask{Host: "x"}, role: request.RoleFetch},
		"secret":                   {ask: request.Ask{Scope: secret, Name: "s"}, ok: true},
		"message":                  {ask: request.Ask{Scope: agent, Name: "a", Data: []byte{11}}, ok: true},
		"largest message":          {ask: request.Ask{Scope: agent, Name: "a", Data: make([]byte, request.MaxAgentMessage)}, ok: true},
		"no message":               {ask: request.Ask{Scope: agent, Name: "a"}, ok: true},
		"too large a message":      {ask: request.Ask{Scope: agent, Name: "a", Data: make([]byte, request.MaxAgentMessage+1)}, ok: false},
		"another secret":           {ask: request.Ask{Scope: secret, Name: "x"}, ok: false},
		"an agent as a secret":     {ask: request.Ask{Scope: secret, Name: "a"}, ok: false},
		"a secret as an agent":     {ask: request.Ask{Scope: agent, Name: "s", Data: []byte{11}}, ok: false},
		"no name":                  {ask: request.Ask{Scope: secret}, ok: false},
		"a path":                   {ask: request.Ask{Scope: secret, Name: "../s"}, ok: false},
		"a secret of a host":       {ask: request.Ask{Scope: secret, Name: "s", Host: "x"}, ok: false},
		"a secret of a repository": {ask: request.Ask{Scope: secret, Name: "s", Repository: "x"}, ok: false},
		"a secret with a message":  {ask: request.Ask{Scope: secret, Name: "s", Data: []byte{11}}, ok: false},
		"a credential by name":     {ask: request.Ask{Host: "x", Name: "s"}, ok: false},
		"a credential with data":   {ask: request.Ask{Host: "x", Data: []byte{11}}, ok: false},
		"another scope":            {ask: request.Ask{Scope: "key", Name: "s"}, ok: false},
		"a scope in capitals":      {ask: request.Ask{Scope: "SECRET", Name: "s"}, ok: false},
	} {
		t.Run(name, func(t *testing.T) {
			p := serveAsks(t, cmp.Or(tt.role, request.RoleBuild), func(_ context.Context, a request.Ask) request.Answer {
				if !tt.ok {
					t.Errorf("answered: %+v", a)
				}
				return request.Answer{Data: []byte("answer")}
			})
			tt.ask.ID = 7
			p.send(request.FrameAsk, tt.ask)
			if tt.ok {
				if a := p.answer(); a.ID != 7 || string(a.Data) != "answer" {
					t.Errorf("answer %+v", a)
				}
				return
			}
			if err := <-p.end; !errors.Is(err, request.ErrFrame) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestPhasesAreTheLaunchers: an executor tells spans, but no phases.
func TestPhasesAreTheLaunchers(t *testing.T) {
	p := serveAsks(t, request.RoleBuild, nil)
	p.send(request.FrameEvent, request.Event{Kind: request.EventSpan, Name: "pack", Total: 1})
	p.send(request.FrameEvent, request.Event{Kind: request.EventPhase, Name: "work build", Total: 1})
	if err := <-p.end; !errors.Is(err, request.ErrFrame) || !strings.Contains(err.Error(), `"phase"`) {
		t.Errorf("%v", err)
	}
}

// TestManyMessages: a step may send as many messages as it likes; that is no
// fault of the executor, but it ends somewhere.
func TestManyMessages(t *testing.T) {
	p := serveAsks(t, request.RoleFetch, func(context.Context, request.Ask) request.Answer { return request.Answer{} })
	p.s.messages.Store(maxMessages - 1)
	for _, want := range []string{"", "too many messages"} {
		p.send(request.FrameAsk, request.Ask{Scope: request.Agent, Name: "a", Data: []byte{11}})
		if a := p.answer(); !strings.Contains(a.Error, want) || want == "" && a.Error != "" {
			t.Errorf("answer %+v, want %q", a, want)
		}
	}
	for i := range maxAsks + 1 {
		p.send(request.FrameAsk, request.Ask{Scope: request.Secret, Name: "GIT_AUTH_TOKEN"})
		if i < maxAsks {
			p.answer()
		}
	}
	if err := <-p.end; !errors.Is(err, request.ErrFrame) {
		t.Errorf("error %v", err)
	}
}

// TestSlowAgent: an agent that waits for a person keeps nothing else waiting.
func TestSlowAgent(t *testing.T) {
	touched := make(chan struct{})
	p := serveAsks(t, request.RoleFetch, func(ctx context.Context, a request.Ask) request.Answer {
		if a.Scope == request.Agent {
			select {
			case <-touched:
			case <-time.After(10 * time.Second):
				t.Error("nothing else was answered")
			}
		}
		return request.Answer{}
	})
	for i := range uint64(request.MaxAgentsAtOnce) {
		p.send(request.FrameAsk, request.Ask{ID: i + 1, Scope: request.Agent, Name: "a", Data: []byte{11}})
	}
	p.send(request.FrameAsk, request.Ask{ID: 100, Host: "x", Scope: request.Pull})
	if a := p.answer(); a.ID != 100 {
		t.Errorf("first answer %+v", a)
	}
	close(touched)
	for range request.MaxAgentsAtOnce {
		p.answer()
	}
}

func TestOverSSH(t *testing.T) {
	for url, want := range map[string]bool{
		"": false, "https://user@host/x.git": false, "ssh://git@host/x": true, "git@host:x.git": true, "git://host/x": false, "github.com/a/b": false,
	} {
		s := session{c: Config{Request: request.Build{Contexts: []request.NamedContext{{}, {Source: request.Source{URL: url}}}}}}
		if overSSH(url) != want || s.forFetching(request.Ask{Scope: request.Agent}) != want {
			t.Errorf("%q: %v", url, !want)
		}
	}
}
