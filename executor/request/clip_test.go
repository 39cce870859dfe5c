package request

import (
	"bytes"
	"strings"
	"testing"
)

// events keeps what it is sent.
type events []Event

func (s *events) Emit(e Event) { *s = append(*s, e) }

func (s *events) output(step int) string {
	var b strings.Builder
	for _, e := range *s {
		if e.Kind == EventLog && e.Step == step {
			b.Write(e.Data)
		}
	}
	return b.String()
}

func logged(step, n int) Event {
	return Event{Kind: EventLog, Step: step, Stream: 1, Data: bytes.Repeat([]byte("x"), n)}
}

// One step is cut at its limit, to the byte, with one line that says so; others
// are not.
func TestClipStep(t *testing.T) {
	var got events
	c := NewClip(&got, Limits{Log: 1024}, false)
	for range 3 {
		c.Emit(logged(1, 500))
	}
	c.Emit(logged(1, 500))
	c.Emit(logged(2, 1024))
	c.Emit(Event{Kind: EventDone, Step: 1})
	const note = "\n[output clipped: no more of this step is shown after 1 KiB (--log-limit)]\n"
	if want := strings.Repeat("x", 1024) + note; got.output(1) != want {
		t.Errorf("step 1: %q", got.output(1))
	}
	if got.output(2) != strings.Repeat("x", 1024) {
		t.Errorf("step 2: %q", got.output(2))
	}
	if last := got[len(got)-1]; last.Kind != EventDone {
		t.Errorf("the end of the step is lost: %v", last.Kind)
	}
}

// The launcher's Clip lets pass all that an honest executor's does.
func TestClipTwice(t *testing.T) {
	var got, once events
	l := Limits{Log: 1000}
	c := NewClip(NewClip(&got, l, true), l, false)
	same := NewClip(&once, l, false)
	for i := range 5000 {
		c.Emit(logged(i%30, 700))
		same.Emit(logged(i%30, 700))
	}
	if len(got) != len(once) {
		t.Errorf("%d events after two, %d after one", len(got), len(once))
	}
}

// A flood of any event ends, whatever it says and however many steps it names.
func TestClipFlood(t *testing.T) {
	for name, e := range map[string]Event{
		"names":    {Kind: EventStart, Name: strings.Repeat("n", 1000)},
		"texts":    {Kind: EventInfo, Text: strings.Repeat("n", 1000)},
		"spans":    {Kind: EventSpan, Name: strings.Repeat("n", 1000)},
		"errors":   {Kind: EventDone, Error: strings.Repeat("n", 1000)},
		"progress": {Kind: EventProgress, Bytes: 1},
		"output":   logged(0, 1),
	} {
		var got events
		c := NewClip(&got, Limits{Log: 100_000}, true)
		for i := range 50_000 {
			e.Step = i
			c.Emit(e)
		}
		total, notes := 0, 0
		for _, e := range got {
			total += len(e.Name) + len(e.Data) + len(e.Text) + len(e.Error) + eventCost
			if strings.Contains(e.Text, "output clipped") {
				notes++
			}
		}
		if most := MaxLogs*(100_000+c.slack+eventCost) + maxSteps*1100; int64(total) > most {
			t.Errorf("%s: %d bytes passed, at most %d may", name, total, most)
		}
		if len(c.steps) > maxSteps {
			t.Errorf("%s: %d steps are remembered", name, len(c.steps))
		}
		if name != "output" && notes != 1 {
			t.Errorf("%s: told %d times", name, notes)
		}
	}
}
