package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

var update = flag.Bool("update", false, "rewrite golden files")

// file is a trace in memory.
type file struct {
	bytes.Buffer
	full   bool
	closed bool
}

func (f *file) Write(p []byte) (int, error) {
	if f.full {
		return 0, errors.New("full")
	}
	return f.Buffer.Write(p)
}

func (f *file) Close() error {
	f.closed = true
	return nil
}

// sink counts what is passed on.
type sink struct{ events int }

func (s *sink) Emit(request.Event) { s.events++ }

// hide is a mask.
func hide(text string) string { return strings.ReplaceAll(text, "hunter2", "***") }

// clock is a time that a test moves.
type clock struct{ now time.Time }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is a time of a build, in milliseconds, and that of the clock.
func (c *clock) at(ms int) time.Time {
	c.now = epoch.Add(time.Duration(ms) * time.Millisecond)
	return c.now
}

func trace(t *testing.T) (*Trace, *file, *clock, *sink) {
	t.Helper()
	f, c, next := &file{}, &clock{now: epoch}, &sink{}
	return begin(f, next, hide, func() time.Time { return c.now }), f, c, next
}

// event is an event of a trace, as a program reads it.
type event struct {
	Name, Cat, Ph string
	TS, Dur       int64
	TID           int
	Args          struct {
		Name, Error string
		Bytes       int64
	}
}

func parse(t *testing.T, text []byte) (spans []event, threads map[int]string) {
	t.Helper()
	var all []event
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	threads = map[int]string{}
	for _, e := range all {
		switch {
		case e.Ph == "X":
			spans = append(spans, e)
		case e.Name == "thread_name":
			threads[e.TID] = e.Args.Name
		}
	}
	return spans, threads
}

// A build of two roles, with steps and spans at the same time, one that fails and one
// that does not end.
func TestTrace(t *testing.T) {
	tr, f, c, next := trace(t)
	build := func(ms int, kind request.EventKind, step int, name string) {
		tr.Emit(request.Event{Time: c.at(ms), Kind: kind, Step: step, Name: name, Role: request.RoleBuild})
	}
	took := func(role request.Role, kind request.EventKind, from, to int, name string) {
		start := c.at(from)
		tr.Emit(request.Event{Time: start, Kind: kind, Name: name, Total: int64(c.at(to).Sub(start)), Role: role})
	}
	took("", request.EventPhase, 0, 1, "prepare")
	took(request.RoleFetch, request.EventPhase, 1, 100, "start fetch")
	tr.Emit(request.Event{Time: c.at(110), Kind: request.EventStart, Step: 1, Name: "pull base", Role: request.RoleFetch})
	tr.Emit(request.Event{Time: c.at(120), Kind: request.EventProgress, Step: 1, Bytes: 1000, Total: 2000, Role: request.RoleFetch})
	tr.Emit(request.Event{Time: c.at(130), Kind: request.EventProgress, Step: 1, Bytes: 2000, Total: 2000, Role: request.RoleFetch})
	took(request.RoleFetch, request.EventSpan, 115, 140, "image of layer")
	tr.Emit(request.Event{Time: c.at(150), Kind: request.EventDone, Step: 1, Role: request.RoleFetch})
	took(request.RoleFetch, request.EventPhase, 100, 160, "work fetch")
	took(request.RoleBuild, request.EventPhase, 1, 170, "start build")
	build(200, request.EventStart, 2, "[1/2] RUN echo hunter2 && make\n##vso[x]\u202e")
	build(210, request.EventStart, 3, "[other 1/1] COPY a b")
	build(250, request.EventDone, 2, "")
	build(250, request.EventStart, 4, "[2/2] RUN exit 1") // where step 2 was
	took(request.RoleBuild, request.EventSpan, 255, 300, "pack [1/2] RUN echo hunter2 && make")
	tr.Emit(request.Event{Time: c.at(310), Kind: request.EventDone, Step: 4, Error: "exit code: 1: hunter2", Role: request.RoleBuild})
	tr.Emit(request.Event{Time: c.at(310), Kind: request.EventLog, Step: 4, Data: []byte("x"), Role: request.RoleBuild})
	tr.Emit(request.Event{Time: c.at(310), Kind: request.EventDone, Step: 77, Role: request.RoleBuild})
	c.at(320)
	if err := tr.Close(); err != nil || !f.closed {
		t.Fatal(err, f.closed)
	}
	tr.Emit(request.Event{Kind: request.EventInfo})
	if err := tr.Close(); err != nil || next.events != 18 {
		t.Errorf("%v, %d events were passed on", err, next.events)
	}
	golden(t, "trace.json", f.Bytes())
	spans, _ := parse(t, f.Bytes())
	nest(t, spans)
	if strings.Contains(f.String(), "hunter2") {
		t.Error("a secret is in it")
	}
}

// nest fails where two spans of a thread overlap, and none lies in the other.
func nest(t *testing.T, spans []event) {
	t.Helper()
	for i, a := range spans {
		for _, b := range spans[i+1:] {
			if a.TID == b.TID && a.TS < b.TS+b.Dur && b.TS < a.TS+a.Dur {
				t.Errorf("%+v and %+v overlap", a, b)
			}
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (-update rewrites it): got\n%s", path, got)
	}
}

// What a sandbox says of times stays between the begin of the trace and now.
func TestTimesThatCannotBe(t *testing.T) {
	tr, f, c, _ := trace(t)
	c.at(1000)
	for _, at := range []time.Time{{}, epoch.AddDate(-3000, 0, 0), epoch.AddDate(7000, 0, 0), time.Unix(1<<62, 0), time.Unix(-1<<62, 0)} {
		tr.Emit(request.Event{Time: at, Kind: request.EventSpan, Name: "s", Total: 1<<63 - 1})
		tr.Emit(request.Event{Time: at, Kind: request.EventStart, Step: 1})
		tr.Emit(request.Event{Time: at, Kind: request.EventDone, Step: 1})
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	spans, _ := parse(t, f.Bytes())
	if len(spans) != 10 {
		t.Errorf("%d spans", len(spans))
	}
	for _, s := range spans {
		if s.TS < epoch.UnixMicro() || s.Dur < 0 || s.TS+s.Dur > c.now.UnixMicro() {
			t.Errorf("%+v", s)
		}
	}
}

// However many steps there are at once, and however long their names: what is kept
// and written has a bound, and phases are written all the same.
func TestBounds(t *testing.T) {
	tr, f, c, _ := trace(t)
	name := strings.Repeat("é", maxName)
	for n := range 3 * maxOpen {
		tr.Emit(request.Event{Time: c.at(n), Kind: request.EventStart, Step: n, Name: name, Role: request.RoleBuild})
	}
	if len(tr.open) >= maxLanes {
		t.Errorf("%d steps are kept", len(tr.open))
	}
	for n := range 3 * maxOpen {
		tr.Emit(request.Event{Time: c.at(4000), Kind: request.EventDone, Step: n, Role: request.RoleBuild})
	}
	tr.size = maxFile + 1
	before := f.Len()
	tr.Emit(request.Event{Time: c.at(5000), Kind: request.EventSpan, Name: "left out", Role: request.RoleBuild})
	if f.Len() != before {
		t.Error("written over the bound")
	}
	tr.Emit(request.Event{Time: c.at(5000), Kind: request.EventPhase, Name: "work build", Role: request.RoleBuild})
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	spans, threads := parse(t, f.Bytes())
	if len(threads) != maxLanes || spans[len(spans)-1].Name != "work build" {
		t.Errorf("%d threads, the last span is %+v", len(threads), spans[len(spans)-1])
	}
	for _, s := range spans {
		if len(s.Name) > maxName {
			t.Fatalf("a name of %d bytes", len(s.Name))
		}
	}
}

// The end of a launcher that was killed is missing: what is there can be read with a
// bracket behind it.
func TestCutOff(t *testing.T) {
	tr, f, c, _ := trace(t)
	tr.Emit(request.Event{Time: c.at(1), Kind: request.EventPhase, Name: "prepare", Total: 1})
	if spans, _ := parse(t, fmt.Append(bytes.Clone(f.Bytes()), "]")); len(spans) != 1 {
		t.Errorf("%+v", spans)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "trace")
	tr, err := Create(path, &sink{}, hide)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if _, err := Create(filepath.Join(dir, "none", "trace"), &sink{}, hide); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "--trace: ") {
		t.Error(err)
	}
	if _, err := Create("/dev/full", &sink{}, hide); err == nil || !strings.HasPrefix(err.Error(), "--trace: ") {
		t.Error(err)
	}
	// Without a file it is a sink as any.
	next := &sink{}
	if tr, err = Create("", next, hide); err != nil {
		t.Fatal(err)
	}
	tr.Emit(request.Event{Kind: request.EventStart, Step: 1})
	if err := tr.Close(); err != nil || next.events != 1 {
		t.Error(err, next.events)
	}
}

// A file that can no longer be written to is told at the end; the build goes on.
func TestFull(t *testing.T) {
	tr, f, c, next := trace(t)
	f.full = true
	for n := range 3 {
		tr.Emit(request.Event{Time: c.at(n), Kind: request.EventPhase, Name: "p"})
	}
	if err := tr.Close(); err == nil || err.Error() != "--trace: full" || next.events != 3 || !f.closed {
		t.Error(err, next.events)
	}
}
