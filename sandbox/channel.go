package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Limits on the other side of the channel.
const (
	// startTime bounds the time until the executor's first frame.
	startTime = 60 * time.Second
	// replyTime bounds how long the executor may leave a frame of ours unread.
	replyTime = 10 * time.Second
	// cancelGrace is what the executor has for ending by itself.
	cancelGrace = 700 * time.Millisecond

	maxAsks      = 10000 // in one build
	maxAsksAtOne = 4     // at the same time
	// maxMessages bounds the messages to SSH agents in one build; further ones
	// fail.
	maxMessages = 100000
)

// socketPair returns the launcher's end, which takes deadlines, and the end
// for the sandbox.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// conversation is what the launcher and one role have to tell each other.
type conversation struct {
	part
	in     *intake
	phases *phases
}

// session is the launcher's side of one channel.
type session struct {
	conversation
	conn    *os.File
	w       *request.Writer
	c       Config
	started bool // a frame has come
	// verify looks at the walls from both sides, before the executor may begin.
	verify  func(inside request.Posture) (request.RolePosture, error)
	posture *request.RolePosture // nil before the hello

	unsent   atomic.Pointer[error] // why the role was not told to begin
	asks     int
	slots    chan struct{}
	messages atomic.Int64 // to agents
	agents   chan struct{}
	wg       sync.WaitGroup
}

func newSession(conn *os.File, c Config, with conversation, verify func(request.Posture) (request.RolePosture, error)) *session {
	return &session{
		conversation: with, conn: conn, w: request.NewWriter(conn), c: c, verify: verify,
		slots: make(chan struct{}, maxAsksAtOne), agents: make(chan struct{}, request.MaxAgentsAtOnce),
	}
}

// errNoResult is a channel that ended too early.
var errNoResult = errors.New("the executor ended without a result")

// serve handles frames until the result. When ctx ends, the executor is asked
// to stop, and some time later no longer listened to.
func (s *session) serve(ctx context.Context) (request.Result, error) {
	ctx, stop := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer stop()
	unwatch := context.AfterFunc(ctx, s.cancel)
	defer unwatch()
	if err := s.conn.SetReadDeadline(time.Now().Add(startTime)); err != nil {
		return request.Result{}, fmt.Errorf("channel: %w", err)
	}
	r := request.NewReader(bufio.NewReaderSize(s.conn, 64<<10))
	for {
		kind, payload, err := r.Next()
		if err != nil {
			return request.Result{}, s.readError(ctx, err)
		}
		s.started = true
		if kind == request.FrameResult {
			return s.result(payload)
		}
		if s.posture == nil && kind != request.FrameHello {
			return request.Result{}, fmt.Errorf("%w: kind %q before the hello", request.ErrFrame, kind)
		}
		if err := s.frame(ctx, kind, payload); err != nil {
			return request.Result{}, err
		}
	}
}

// cancel asks the executor to stop and bounds the time for it.
func (s *session) cancel() {
	_ = s.conn.SetReadDeadline(time.Now().Add(cancelGrace))
	_ = s.conn.SetWriteDeadline(time.Now().Add(cancelGrace / 2))
	// An error means that it is gone already.
	_ = s.w.Write(request.FrameCancel, nil)
}

func (s *session) readError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.unsent.Load() != nil:
		return fmt.Errorf("tell %s what to begin with: %w", s.role, *s.unsent.Load())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &WallError{Wall: "gVisor", Msg: fmt.Sprintf("the executor did not speak within %v", startTime), Hint: doctorHint}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		return errNoResult
	}
	return err
}

// frame handles one frame that is not the result.
func (s *session) frame(ctx context.Context, kind request.FrameKind, payload []byte) error {
	switch kind {
	case request.FrameHello:
		return s.hello(ctx, payload)
	case request.FrameEvent:
		var e request.Event
		if err := request.Decode(kind, payload, &e); err != nil {
			return err
		}
		if err := checkEvent(e); err != nil {
			return err
		}
		s.c.Sink.Emit(e)
		return nil
	case request.FrameReady:
		if s.ready == nil {
			return fmt.Errorf("%w: %s is not to say that it is ready, or twice", request.ErrFrame, s.role)
		}
		s.phases.enter(phaseWait)
		s.ready()
		s.ready = nil
		return nil
	case request.FrameAsk:
		var a request.Ask
		if err := request.Decode(kind, payload, &a); err != nil {
			return err
		}
		return s.ask(ctx, a)
	case request.FrameOutput:
		var o request.Output
		if err := request.Decode(kind, payload, &o); err != nil {
			return err
		}
		return s.in.begin(o)
	case request.FrameChunk:
		stream, p, err := request.Chunk(payload)
		if err != nil {
			return err
		}
		return s.in.write(stream, p)
	case request.FrameEnd:
		var e request.OutputEnd
		if err := request.Decode(kind, payload, &e); err != nil {
			return err
		}
		return s.in.end(e)
	}
	return fmt.Errorf("%w: kind %q is not the executor's to send", request.ErrFrame, kind)
}

// hello takes the executor's measurement of its walls, looks at the host's side
// of them and lets it begin; from now on it may take its time.
func (s *session) hello(ctx context.Context, payload []byte) error {
	if s.posture != nil {
		return fmt.Errorf("%w: a second hello", request.ErrFrame)
	}
	var inside request.Posture
	if err := request.Decode(request.FrameHello, payload, &inside); err != nil {
		return err
	}
	s.phases.enter(phaseCheck)
	found, err := s.verify(inside)
	s.posture = &found
	if s.stands != nil {
		s.stands(found)
	}
	if err != nil {
		return err
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	if ctx.Err() != nil {
		s.cancel() // its deadline has just been taken back
		return nil
	}
	s.wg.Go(func() {
		// What an executor that is gone does not take, the reader finds out. But for
		// what is too much to be sent, or not to be begun with, the role would wait for
		// ever.
		if err := s.release(ctx); errors.Is(err, request.ErrFrame) || errors.Is(err, errMounts) {
			s.unsent.Store(&err)
			_ = s.conn.SetReadDeadline(time.Now())
		}
	})
	return nil
}

// release lets the role begin, and gives push its image, when it is time.
func (s *session) release(ctx context.Context) error {
	var start request.Go
	if s.begin != nil {
		s.phases.enter(phaseWait)
		var err error
		if start, err = s.begin(ctx); err != nil {
			return err
		}
	}
	s.phases.enter(phaseWork)
	if err := s.reply(request.FrameGo, start); err != nil || s.image == nil {
		return err
	}
	waiting, stop := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() { defer close(told); s.tellAhead(waiting) }()
	image, err := s.image(ctx)
	stop()
	<-told
	if err != nil {
		return err
	}
	s.phases.enter(phaseWork)
	return s.reply(request.FramePush, image)
}

// checkEvent refuses what no executor of ours says.
func checkEvent(e request.Event) error {
	switch e.Kind {
	case request.EventPlan, request.EventStart, request.EventLog, request.EventDone, request.EventProgress,
		request.EventWarning, request.EventInfo, request.EventDebug, request.EventSpan:
	default:
		return fmt.Errorf("%w: event %.20q", request.ErrFrame, e.Kind)
	}
	if e.Step < 0 || e.Bytes < 0 || e.Total < 0 || e.Line < 0 || e.Stream < 0 || e.Stream > 2 {
		return fmt.Errorf("%w: event with a number that cannot be", request.ErrFrame)
	}
	return nil
}

var (
	// hostForm is a registry's host[:port]; it goes to credential helpers.
	hostForm = regexp.MustCompile(`^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$`)
	repoForm = regexp.MustCompile(`^[a-z0-9._/-]*$`)
)

const maxName = 255

// ask answers in the background: a helper program may take seconds, a person
// who confirms the use of a key longer, and events go on.
func (s *session) ask(ctx context.Context, a request.Ask) error {
	if err := s.checkAsk(a); err != nil {
		return err
	}
	slots := s.slots
	if a.Scope == request.Agent {
		slots = s.agents
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.wg.Go(func() {
		defer func() { <-slots }()
		var answer request.Answer
		switch {
		case a.Scope == request.Agent && s.messages.Add(1) > maxMessages:
			answer.Error = "too many messages in one build"
		case a.Scope == request.Step:
			answer.Data, _ = json.Marshal(s.in.layers.find(a.Name))
		case a.Scope == request.Digest:
			answer.Data = s.in.contents.answer(ctx, a.Name, a.Data)
		case s.c.Answer != nil:
			answer = s.c.Answer(ctx, a)
		}
		answer.ID = a.ID
		// If it cannot be sent, the executor is gone or stuck, and the reader
		// finds out.
		_ = s.reply(request.FrameAnswer, answer)
	})
	return nil
}

// checkAsk refuses what no executor of ours asks for: each scope has its own
// fields, and secrets and agents only those ids that the request has.
func (s *session) checkAsk(a request.Ask) error {
	credential := a.Scope == request.Pull || a.Scope == request.Push
	// How many messages a step sends to an agent is not the executor's choice.
	if a.Scope != request.Agent {
		if s.asks++; s.asks > maxAsks {
			return fmt.Errorf("%w: more than %d asks", request.ErrFrame, maxAsks)
		}
	}
	if !mayAsk(s.role, a.Scope) || s.role == request.RoleFetch && !s.forFetching(a) {
		return fmt.Errorf("%w: %s asks for %.20q", request.ErrFrame, s.role, a.Scope)
	}
	switch {
	case credential && (len(a.Host) > maxName || !hostForm.MatchString(a.Host) || len(a.Repository) > maxName || !repoForm.MatchString(a.Repository)):
		return fmt.Errorf("%w: ask for %.80q of %.80q", request.ErrFrame, a.Repository, a.Host)
	case credential && a.Name == "" && a.Data == nil:
		return nil
	case a.Host != "" || a.Repository != "":
	case a.Scope == request.Step && a.Data == nil && s.c.Request.StepCache && stepForm.MatchString(a.Name):
		return nil
	case a.Scope == request.Digest && len(a.Data) <= request.MaxContents && s.in.contents.lends(a.Name):
		return nil
	case a.Scope == request.Secret && a.Data == nil && slices.Contains(s.c.Request.Secrets, a.Name):
		return nil
	case a.Scope == request.Agent && len(a.Data) <= request.MaxAgentMessage && slices.Contains(s.c.Request.Agents, a.Name):
		return nil
	}
	return fmt.Errorf("%w: ask for %.80q of scope %.20q", request.ErrFrame, a.Name, a.Scope)
}

// mayAsk says which role may ask for what: the pull credentials are fetch's, the
// push credentials are push's, and build has neither.
func mayAsk(role request.Role, scope request.Scope) bool {
	switch scope {
	case request.Pull:
		return role == request.RoleFetch
	case request.Push:
		return role == request.RolePush
	case request.Secret, request.Agent, request.Step, request.Digest:
		return role == request.RoleFetch || role == request.RoleBuild
	}
	return false
}

// forFetching tells whether fetch can have use for what it asks: of the secrets
// those that are for servers (BuildKit's names), of the agents none unless a
// repository is reached by SSH. The rest is for RUN steps.
func (s *session) forFetching(a request.Ask) bool {
	switch a.Scope {
	case request.Secret:
		return strings.HasPrefix(a.Name, "GIT_AUTH_") || strings.HasPrefix(a.Name, "HTTP_AUTH_")
	case request.Agent:
		return overSSH(s.c.Request.Source.URL) || slices.ContainsFunc(s.c.Request.Contexts, func(c request.NamedContext) bool {
			return overSSH(c.Source.URL)
		})
	}
	return true
}

// overSSH: ssh://host/path, or user@host:path.
func overSSH(url string) bool {
	scheme, _, ok := strings.Cut(url, "://")
	return ok && (scheme == "ssh" || scheme == "git+ssh") || !ok && strings.Contains(url, "@")
}

func (s *session) reply(kind request.FrameKind, v any) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(replyTime)); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	return s.w.WriteJSON(kind, v)
}

// result checks the last frame.
func (s *session) result(payload []byte) (request.Result, error) {
	var r request.Result
	if err := request.Decode(request.FrameResult, payload, &r); err != nil {
		return r, err
	}
	if r.Version != request.Version {
		return r, fmt.Errorf("%w: result of version %d, this is %d: launcher and executor are of different releases",
			request.ErrFrame, r.Version, request.Version)
	}
	if r.Digest != "" && !digestForm.MatchString(r.Digest) || r.Size < 0 {
		return r, fmt.Errorf("%w: result with digest %.80q, %d bytes", request.ErrFrame, r.Digest, r.Size)
	}
	r.Posture = nil                           // what it says itself is no measurement
	if r.Failure == nil && s.posture == nil { // else it could not begin
		return r, fmt.Errorf("%w: success before the hello", request.ErrFrame)
	}
	return r, nil
}
