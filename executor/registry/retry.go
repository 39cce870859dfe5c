package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// builtinTries is how often something is tried at least that failed for a
	// reason that may pass: the connection broke, or the registry answered
	// 408, 429 or 5xx. --push-retry and --image-download-retry can only raise
	// it.
	builtinTries = 3
	// firstDelay doubles with each further try, up to maxDelay. A Retry-After
	// of the registry counts instead, up to maxDelay.
	firstDelay = 500 * time.Millisecond
	maxDelay   = 60 * time.Second

	dialTimeout = 30 * time.Second
	// metadataTimeout bounds a request for a manifest, a config or a token and
	// each small step of a push.
	metadataTimeout = 60 * time.Second
	// stallTimeout is how long a blob's transfer may take for each stallBytes.
	stallTimeout = 60 * time.Second
	stallBytes   = 64 << 10
	// commitRate is how fast, in bytes per second, a registry must be with
	// what it does to a blob once it has all of it: some copy it then.
	// That comes on top of stallTimeout.
	commitRate = 8 << 20

	// copySize is the size of the buffers for blobs, in bytes. System calls
	// cost more inside gVisor than outside.
	copySize = 256 << 10
)

// retry calls f until it succeeds, fails for good or was tried often enough;
// what names it for the note about a further try.
func (s *session) retry(ctx context.Context, what string, f func(context.Context) error) error {
	for n := 1; ; n++ {
		var after atomic.Int64
		err := f(context.WithValue(ctx, delayKey{}, &after))
		if err == nil {
			return nil
		}
		a := attempt{n: n, what: what, after: time.Duration(after.Load())}
		if err := s.wait(ctx, a, err); err != nil {
			return err
		}
	}
}

// attempt is a try that failed, the nth.
type attempt struct {
	n     int
	what  string
	after time.Duration // as the registry wants it; 0: it said nothing
}

// wait waits before the next try, or returns err if there is none.
func (s *session) wait(ctx context.Context, a attempt, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	extra := s.c.cfg.Registry.PullRetry
	if s.key.scope == request.Push {
		extra = s.c.cfg.Registry.PushRetry
	}
	if a.n >= max(builtinTries, 1+extra) || !passing(err, extra > 0) {
		return err
	}
	d := min(firstDelay<<min(a.n-1, 10), maxDelay)
	d += time.Duration(rand.Int64N(int64(d/4) + 1))
	if a.after > 0 {
		d = min(a.after, maxDelay)
	}
	_, reason, _ := reasonOf(err, s)
	s.c.note("%s: %s: trying again in %v", a.what, reason, d.Round(100*time.Millisecond))
	if s.c.pause(ctx, d) != nil {
		return err
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// passing says whether what failed with err may succeed later. A registry that
// cannot be reached at all is waited for only if the user asked for retries.
func passing(err error, asked bool) bool {
	var status *transport.Error
	if errors.As(err, &status) {
		return passingStatus(status.StatusCode)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout || asked
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) {
		return asked
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	var stall *stallError
	return errors.As(err, &stall) || strings.Contains(err.Error(), "server closed idle connection")
}

func passingStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 499:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusNetworkAuthenticationRequired:
		return false
	}
	return code >= 500
}

// watchdog ends a transfer that does not move.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
	d      time.Duration
	n      int
}

type stallError struct{ d time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("the transfer stood still for %v", e.d) }

// watch returns a context that is canceled with a stallError unless moved is
// called often enough.
func watch(ctx context.Context, d time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel, d: d}
	w.timer = time.AfterFunc(d, func() { cancel(&stallError{d}) })
	return ctx, w
}

// moved says that n bytes went by.
func (w *watchdog) moved(n int) {
	if w.n += n; w.n >= stallBytes {
		w.n = 0
		w.timer.Reset(w.d)
	}
}

// finish says that a blob of n bytes has been sent: the answer is due.
func (w *watchdog) finish(n int64) {
	w.timer.Reset(w.d + time.Duration(n/commitRate)*time.Second)
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}
