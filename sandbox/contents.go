package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/hashes"
)

// Bounds of what the launcher does about contexts in one build. Beyond them it does not
// know, and the sandbox reads the files itself.
const (
	contentsTime     = 2 * time.Minute
	contentsMemory   = 256 << 20 // bytes
	contentsDeepest  = 128       // directories in each other, all open
	contentsPatterns = 10_000
	contentsPattern  = 4096 // bytes
	contentsLessons  = 16   // that wait to be learned
)

// contents tells fetch and build the digest of what a copy takes of a local context:
// here its files are at hand, inside each goes through gVisor's gofer. Who asks sees
// the context itself; of anything else nothing is told.
type contents struct {
	lent map[string]string // directories, by where they are inside
	dir  string            // of what is remembered
	sink request.Sink
	most int64 // bytes of memory for one copy

	mu   sync.Mutex // one digest at a time: memory is bounded
	left time.Duration

	known  sync.Mutex
	hashes map[string]*hashes.Context

	lessons chan lesson
	stop    func() // learning; returns when nothing is read any more
}

// lesson is what a copy has taken, whose files the next build will ask for.
type lesson struct {
	dir string
	of  request.Contents
}

// openContents makes ready what answers, if there is a layer cache; else nil.
func openContents(c Config) (*contents, error) {
	if !c.Request.StepCache {
		return nil, nil
	}
	k := &contents{
		lent: map[string]string{}, dir: c.Caches.hashes(), sink: c.Sink, most: contentsMemory,
		left: contentsTime, hashes: map[string]*hashes.Context{}, lessons: make(chan lesson, contentsLessons),
	}
	if c.Context != "" {
		k.lent[guestContext] = c.Context
	}
	for i, dir := range c.Contexts {
		if dir != "" && c.Request.Contexts[i].Layout == "" {
			k.lent[guestNamed(i)] = dir
		}
	}
	if err := os.Mkdir(k.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	if err := checkOwner(k.dir); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	k.stop = k.learn()
	return k, nil
}

// hashes is the part of the directory that remembers hashes of files of contexts.
func (c Caches) hashes() string { return filepath.Join(c.Dir, "hashes") }

// lends says whether there is a context at a path inside.
func (k *contents) lends(at string) bool { return k != nil && k.lent[at] != "" }

// answer answers; nil: it is not known here, or was only to be learned. The sandbox
// may be hostile, and the context, too.
func (k *contents) answer(ctx context.Context, at string, asked []byte) []byte {
	var of request.Contents
	err := json.Unmarshal(asked, &of)
	if err == nil {
		err = checkPatterns(of)
	}
	switch {
	case err != nil:
		k.unknown(err)
	case of.Learn:
		select {
		case k.lessons <- lesson{k.lent[at], of}:
		default: // the next build reads them
		}
	default:
		return k.digest(ctx, k.lent[at], of)
	}
	return nil
}

func (k *contents) unknown(err error) {
	k.sink.Emit(request.Event{Time: time.Now(), Kind: request.EventDebug, Text: "the files of a copy are read inside: " + err.Error()})
}

// learn reads one lesson after the other until stop, beside whatever the sandboxes do:
// one file at a time.
func (k *contents) learn() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case l := <-k.lessons:
				// What fails is not known, and the next build asks for it.
				_, _ = k.take(ctx, l.dir, l.of, k.most/4)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (k *contents) digest(ctx context.Context, dir string, of request.Contents) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, k.left)
	defer cancel()
	sum, err := k.take(ctx, dir, of, k.most)
	k.left -= time.Since(begun)
	total := int64(time.Since(begun))
	k.sink.Emit(request.Event{Time: begun, Kind: request.EventPhase, Name: "digest of a copy", Total: total})
	if err != nil {
		k.unknown(err)
		return nil
	}
	return sum
}

var errTooMuch = errors.New("too much for the launcher")

func (k *contents) take(ctx context.Context, dir string, of request.Contents, most int64) ([]byte, error) {
	src := take.Source{Root: dir, Patterns: of.Ignore}
	ignore, err := take.NewIgnore(of.Ignore)
	if err != nil {
		return nil, err
	}
	if ignore != nil {
		src.Excluded = ignore.Excluded
	}
	var taken atomic.Int64
	care := take.Care{Deepest: contentsDeepest, Single: of.Learn, Pay: func(ctx context.Context, n int) error {
		if taken.Add(int64(n)) > most {
			return errTooMuch
		}
		return ctx.Err()
	}}
	if known := k.remembered(dir); known != nil {
		care.Hashes = known
	}
	sum, err := take.Digest(ctx, src, of.Selection, care)
	return sum[:], err
}

// checkPatterns keeps what is asked small enough to be answered.
func checkPatterns(of request.Contents) error {
	if len(of.Ignore)+len(of.Exclude) > contentsPatterns {
		return errTooMuch
	}
	for _, list := range [][]string{of.Ignore, of.Exclude, of.Paths} {
		for _, pattern := range list {
			if len(pattern) > contentsPattern {
				return errTooMuch
			}
		}
	}
	return nil
}

// remembered is what earlier builds know of a context; nil: nobody may believe it.
func (k *contents) remembered(dir string) *hashes.Context {
	k.known.Lock()
	defer k.known.Unlock()
	if k.hashes[dir] == nil && hashes.Trusted(dir) {
		k.hashes[dir] = hashes.Open(k.dir, dir)
	}
	return k.hashes[dir]
}

// close keeps what was learned.
func (k *contents) close() {
	if k == nil {
		return
	}
	k.stop()
	for _, h := range k.hashes {
		if err := h.Save(); err != nil {
			warn(k.sink, err.Error())
		}
	}
}
