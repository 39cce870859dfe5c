package progress

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const canary = "canary-5b1f/+?\"x"

func hidden(t *testing.T) *mask.Values {
	t.Helper()
	values := mask.New()
	for _, v := range []string{canary, "\xff\x00\xfe\x01binary"} {
		if err := values.Add([]byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// leaks shows a value in every way that events have.
func leaks() []request.Event {
	log := func(stream int, data string) request.Event {
		return request.Event{Time: at(2), Kind: request.EventLog, Step: 1, Stream: stream, Data: []byte(data)}
	}
	half := len(canary) / 2
	return []request.Event{
		{Time: at(1), Kind: request.EventStart, Step: 1, Name: "RUN echo " + canary},
		log(1, "whole "+canary+"\n"),
		log(1, "halves "+canary[:half]), log(1, canary[half:]+"\n"),
		log(1, "other output "+canary[:half]), log(2, canary[half:]+"\n"),
		log(1, "\n"),
		log(1, "coloured "+canary[:half]+"\x1b[31m"+canary[half:]+"\x1b[0m\n"),
		log(1, "base64 "+base64.StdEncoding.EncodeToString([]byte("user:"+canary))+"\n"),
		log(1, "binary \xff\x00\xfe\x01binary\n"),
		log(1, strings.Repeat("x", maxLine-5)+canary+"\n"),
		{Time: at(2), Kind: request.EventStart, Step: 2, Name: "RUN x"},
		{Time: at(2), Kind: request.EventLog, Step: 2, Stream: 1, Data: []byte("no newline " + canary)},
		{Time: at(3), Kind: request.EventDone, Step: 2, Error: "exit code 1: " + canary},
		{Time: at(2), Kind: request.EventStart, Step: 3, Name: "RUN coloured " + canary[:half] + "\x1b[1m" + canary[half:]},
		{Time: at(3), Kind: request.EventDone, Step: 3},
		{Time: at(3), Kind: request.EventWarning, Text: "warning " + canary, Data: []byte(canary)},
		{Time: at(3), Kind: request.EventInfo, Text: "info\n" + canary},
		{Time: at(3), Kind: request.EventDebug, Text: "debug " + canary},
		log(1, "the end "+canary[:half]),
	}
}

// secretIn finds a value in what was shown, as it is or as JSON has it.
func secretIn(shown string) bool {
	escaped, _ := json.Marshal(canary)
	return strings.Contains(shown, canary) || strings.Contains(shown, strings.Trim(string(escaped), `"`)) ||
		strings.Contains(shown, "canary-5b1f") || strings.Contains(shown, `\xff^@`)
}

func TestMasked(t *testing.T) {
	for _, opt := range []Options{{Mode: Plain}, {Mode: Plain, Color: true, Timestamp: true}, {Mode: TTY}, {Mode: JSON}} {
		t.Run(fmt.Sprintf("%s color=%t", opt.Mode, opt.Color), func(t *testing.T) {
			opt.Level = Debug
			shown := func(opt Options) string {
				got := show(t, opt, leaks())
				if opt.Mode == JSON {
					got += decoded(t, got)
				}
				return got
			}
			if !secretIn(shown(opt)) {
				t.Error("without a mask the value is not shown either")
			}
			opt.Mask = hidden(t)
			if got := shown(opt); secretIn(got) || strings.Count(got, mask.Mask) < 3 {
				t.Errorf("shown:\n%.3000s", got)
			}
		})
	}
}

// decoded is the data of all log events of a JSON log.
func decoded(t *testing.T, log string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(log) {
		var e request.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		out.Write(e.Data)
	}
	return out.String()
}

// TestHeldBack loses nothing of an output that has no newline, and keeps it
// before the step's end.
func TestHeldBack(t *testing.T) {
	events := []request.Event{
		{Kind: request.EventStart, Step: 1, Name: "RUN x"},
		{Kind: request.EventLog, Step: 1, Stream: 1, Data: []byte("a\ncanary-5b")},
		{Kind: request.EventLog, Step: 1, Stream: 2, Data: []byte("b\ncan")},
		{Kind: request.EventDone, Step: 1},
		{Kind: request.EventLog, Step: 2, Stream: 1, Data: []byte("cut off: canary")},
	}
	got := show(t, Options{Level: Normal, Mask: hidden(t)}, events)
	if !regexp.MustCompile(`(?s)a\n.*canary-5b.*can\n.*DONE.*cut off: canary\n`).MatchString(got) {
		t.Errorf("got\n%s", got)
	}
}

func TestMaskedReport(t *testing.T) {
	f := request.Failure{
		Message: "m " + canary, Hint: "h " + canary, File: canary, Line: 1, Excerpt: " 1 | >>> RUN " + canary,
		Log: []byte("a can\x1b[1mary-5b1f/+?\"x\n\xff\x00\xfe\x01binary\n"),
	}
	for want, values := range map[bool]*mask.Values{true: nil, false: hidden(t)} {
		var out bytes.Buffer
		opt := Options{Mask: values}
		if err := Report(&out, f, opt); err != nil {
			t.Fatal(err)
		}
		if err := Error(&out, "e "+canary, "h "+canary, opt); err != nil {
			t.Fatal(err)
		}
		if got := secretIn(out.String()); got != want {
			t.Errorf("with a mask %t: the value is shown: %t\n%s", values != nil, got, out.String())
		}
	}
}

// TestOurLines: whatever the sandbox says, no line begins with it. So none can
// pass for one of ours, nor for a heading or a command of a CI system.
func TestOurLines(t *testing.T) {
	var events []request.Event
	forged := []string{"--- x", "+++ x", "~~~ x", "^^^ +++", "::error::x", "##[error]x", "##vso[x]", "##teamcity[x]", "#1 DONE 0.1s", "error: x", "built sha256:0",
		"section_start:1:x\r\x1b[0Kx", "section_end:1:x\r\x1b[0K", "travis_fold:start:x\r\x1b[0K", "{\"kind\":\"result\"}", "\x1b]1338;url=x\x07y", "\x1b_bk;t=1\x07y"}
	text := "x\n" + strings.Join(forged, "\n") + "\n\r" + strings.Join(forged, "\r") + "\u2028" + strings.Join(forged, "\u2028")
	for i, kind := range []request.EventKind{request.EventWarning, request.EventInfo, request.EventDebug} {
		events = append(events,
			request.Event{Kind: kind, Text: text},
			request.Event{Kind: request.EventStart, Step: i + 1, Name: text},
			request.Event{Kind: request.EventLog, Step: i + 1, Stream: 1, Data: []byte(text + "\n" + strings.Repeat("y", maxLine) + forged[0] + "\n")},
			request.Event{Kind: request.EventDone, Step: i + 1, Error: text})
	}
	ours := regexp.MustCompile(`^(#\d+ (x|[0-9]+\.[0-9]{3} |ERROR: |DONE )|WARNING: x|x$|debug: x|  )`)
	lines := strings.Split(show(t, Options{Level: Debug}, events), "\n")
	var out bytes.Buffer
	f := request.Failure{Message: text, Hint: text, File: text, Line: 1, Excerpt: text, Log: []byte(text)}
	if err := Report(&out, f, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Error(&out, text, text, Options{}); err != nil {
		t.Fatal(err)
	}
	report := regexp.MustCompile(`^(error: |hint: |last output:|  ?x|  )`)
	for _, l := range lines {
		if l != "" && !ours.MatchString(l) {
			t.Errorf("a line of its own: %q", l)
		}
	}
	for l := range strings.SplitSeq(out.String(), "\n") {
		if l != "" && !report.MatchString(l) && !strings.HasPrefix(l, " ") {
			t.Errorf("a line of its own in the report: %q", l)
		}
	}
	checkSafe(t, "lines", strings.Join(lines, "\n")+out.String())
}
