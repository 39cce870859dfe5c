package progress

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

var update = flag.Bool("update", false, "rewrite golden files")

func at0() time.Time { return at(0) }

func at(seconds float64) time.Time {
	return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// story is a build with everything that a display has to show.
func story() []request.Event {
	ev := func(s float64, k request.EventKind, step int) request.Event {
		return request.Event{Time: at(s), Kind: k, Step: step}
	}
	start := func(s float64, step int, name string) request.Event {
		e := ev(s, request.EventStart, step)
		e.Name = name
		return e
	}
	log := func(s float64, step int, data string) request.Event {
		e := ev(s, request.EventLog, step)
		e.Stream, e.Data = 1, []byte(data)
		return e
	}
	move := func(s float64, step int, bytes, total int64) request.Event {
		e := ev(s, request.EventProgress, step)
		e.Bytes, e.Total = bytes, total
		return e
	}
	plan := ev(0, request.EventPlan, 0)
	plan.Total = 5
	warning := ev(0.1, request.EventWarning, 0)
	warning.Text, warning.Line = "MaintainerDeprecated: use a label", 2
	info := ev(0.2, request.EventInfo, 0)
	info.Text = "two\nlines"
	debug := ev(0.2, request.EventDebug, 0)
	debug.Text = "credential for reg.example (pull): none, anonymous"
	failed := ev(9, request.EventDone, 4)
	failed.Error = "exit code 2"
	return []request.Event{
		plan, warning, info, debug,
		start(0.3, 1, "pull reg.example/base:1"),
		move(1, 1, 1_000_000, 45_100_000),
		move(6, 1, 30_000_000, 45_100_000),
		move(7, 1, 45_100_000, 45_100_000),
		ev(7.1, request.EventDone, 1),
		start(7.2, 2, "[build 1/2] RUN make"),
		log(7.3, 2, "cc -o hello hello.c\npartial"),
		start(7.4, 3, "[other 1/1] COPY --from=build\n\ta   b"),
		log(7.5, 2, " line\n"),
		ev(7.6, request.EventDone, 3),
		log(7.7, 2, "\x1b[32mcoloured\x1b[0m\r\nno newline at the end"),
		ev(8, request.EventDone, 2),
		start(8.1, 4, "[build 2/2] RUN false"),
		log(8.2, 4, "::error::fine\n\nevil\roverwritten\n"),
		failed,
	}
}

func show(t *testing.T, opt Options, events []request.Event) string {
	t.Helper()
	var out bytes.Buffer
	if opt.Now == nil {
		opt.Now = at0
	}
	d := New(&out, opt)
	for _, e := range events {
		d.Emit(e)
	}
	d.Close()
	d.Close() // twice is once
	d.Emit(request.Event{Kind: request.EventInfo, Text: "too late"})
	return out.String()
}

func TestPlain(t *testing.T) {
	golden(t, "plain.txt", show(t, Options{Level: Debug}, story()))
}

func TestPlainColor(t *testing.T) {
	got := show(t, Options{Level: Normal, Color: true}, story())
	for _, want := range []string{"\x1b[33mWARNING: \x1b[0m", "\x1b[31mERROR: exit code 2\x1b[0m", "#2 \x1b[36m[build 1/2] RUN make\x1b[0m"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		level      Level
		has, lacks string
	}{
		{Debug, "debug: credential", "too late"},
		{Normal, "#2 DONE", "debug:"},
		{Warn, "WARNING: Maintainer", "#2"},
	} {
		got := show(t, Options{Level: tt.level}, story())
		if !strings.Contains(got, tt.has) || strings.Contains(got, tt.lacks) {
			t.Errorf("level %d: want %q and no %q in\n%s", tt.level, tt.has, tt.lacks, got)
		}
	}
	if got := show(t, Options{Level: Quiet}, story()); got != "" {
		t.Errorf("quiet: %q", got)
	}
}

func TestJSON(t *testing.T) {
	events := story()
	got := show(t, Options{Mode: JSON, Level: Debug}, events)
	checkSafe(t, "json", got)
	lines := strings.SplitAfter(got, "\n")
	for i, e := range events {
		var back request.Event
		if err := json.Unmarshal([]byte(lines[i]), &back); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("line %d: -sent +got:\n%s", i, diff)
		}
	}
}

// TestSpans: spans are for the trace; only JSON lines have them, where all is told.
func TestSpans(t *testing.T) {
	events := []request.Event{{Kind: request.EventSpan, Name: "took", Total: 1}, {Kind: request.EventPhase, Name: "took", Total: 1}}
	for _, tt := range []struct {
		mode  Mode
		level Level
		want  int
	}{{JSON, Debug, 2}, {JSON, Normal, 0}, {Plain, Debug, 0}, {TTY, Debug, 0}} {
		if got := show(t, Options{Mode: tt.mode, Level: tt.level}, events); strings.Count(got, "took") != tt.want {
			t.Errorf("%s, level %d: %q", tt.mode, tt.level, got)
		}
	}
}

// TestHostile sends text that tries to deceive through every field.
func TestHostile(t *testing.T) {
	var events []request.Event
	for i, s := range corpus() {
		n := i + 1
		events = append(events,
			request.Event{Time: at(1), Kind: request.EventStart, Step: n, Name: s},
			request.Event{Time: at(2), Kind: request.EventLog, Step: n, Data: []byte(s + "x\n" + s)},
			request.Event{Time: at(3), Kind: request.EventProgress, Step: n, Bytes: -5, Total: 1 << 62},
			request.Event{Time: at(3), Kind: request.EventDone, Step: n, Error: s + "x"},
			request.Event{Kind: request.EventWarning, Text: s}, request.Event{Kind: request.EventInfo, Text: s},
			request.Event{Kind: request.EventDebug, Text: s}, request.Event{Kind: "unheard of", Text: s},
			request.Event{Time: at(1), Kind: request.EventLog, Step: -n, Data: []byte(s)},
		)
	}
	for _, mode := range []Mode{Plain, JSON} {
		checkSafe(t, string(mode), show(t, Options{Mode: mode, Level: Debug}, events))
	}
	for _, color := range []bool{false, true} {
		got := show(t, Options{Mode: TTY, Level: Debug, Color: color}, events)
		for _, ours := range []string{"\x1b[G", "\x1b[J", "\x1b[2K", "\x1b[0m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[2m"} {
			got = strings.ReplaceAll(got, ours, "")
		}
		for n := range 60 {
			got = strings.ReplaceAll(got, fmt.Sprintf("\x1b[%dA", n), "")
		}
		checkSafe(t, "tty", got)
	}
	var out bytes.Buffer
	for _, s := range corpus() {
		f := request.Failure{Class: request.ClassRun, Message: s, Hint: s, File: s + "f", Line: 1, Excerpt: s, Log: []byte(s), ExitCode: 3}
		if err := errors.Join(Report(&out, f, Options{}), Error(&out, s+"x", s, Options{})); err != nil {
			t.Fatal(err)
		}
	}
	checkSafe(t, "report", out.String())
}

// TestBounded floods a display: what it remembers has an end.
func TestBounded(t *testing.T) {
	var out bytes.Buffer
	d := New(&out, Options{Level: Normal})
	for n := range 3 * maxSteps {
		d.Emit(request.Event{Kind: request.EventStart, Step: n + 1, Name: strings.Repeat("n", 10*maxName)})
	}
	const output = 3 << 20
	for range output >> 20 {
		d.Emit(request.Event{Kind: request.EventLog, Step: 1, Data: bytes.Repeat([]byte("x"), 1<<20)})
	}
	p := d.view.(*masked).view.(*plain)
	if n := len(p.steps.list); n != maxSteps {
		t.Errorf("%d steps are remembered, not %d", n, maxSteps)
	}
	if n := len(p.steps.find(1).name); n > maxName {
		t.Errorf("a name of %d bytes", n)
	}
	if n := cap(p.steps.find(1).partial); n > 2*maxLine {
		t.Errorf("%d bytes of a line are kept", n)
	}
	d.Close()
	if n := out.Len(); n > 3*maxSteps*(maxName+100)+2*output {
		t.Errorf("%d bytes were shown", n)
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	f := request.Failure{
		Class: request.ClassRun, Message: "RUN make: exit code 2", File: "Dockerfile", Line: 3, EndLine: 3,
		Excerpt: "   2 |     COPY . .\n   3 | >>> RUN make\n", Log: []byte("one\n\x1b[31mtwo\x1b[0m\n"), ExitCode: 2,
		Hint: "look above",
	}
	if err := Report(&out, f, Options{}); err != nil {
		t.Fatal(err)
	}
	f = request.Failure{Class: request.ClassResolve, Message: "reg.example/x: not found"}
	out.WriteString("----\n")
	if err := Report(&out, f, Options{}); err != nil {
		t.Fatal(err)
	}
	out.WriteString("----\n")
	f = request.Failure{Message: "killed", ExitCode: 137, Log: []byte(strings.Repeat("line\n", 100))}
	if err := Report(&out, f, Options{}); err != nil {
		t.Fatal(err)
	}
	out.WriteString("----\n")
	if err := Error(&out, "--a: no\n--b: no", "try this\nor that", Options{Color: true}); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", strings.ReplaceAll(out.String(), "\x1b", "ESC"))
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 12_580_000: "12.6 MB", 999_400: "999 kB", 999_600: "1 MB", 5_000_000_000_000: "5 TB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(path + " (-update rewrites it) -want +got:\n" + diff)
	}
}
