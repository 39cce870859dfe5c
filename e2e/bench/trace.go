package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// spent says for each part of a build how long at least one thing of it was
// under way. Things of one part that run at once count once, so that a part can
// be held against the wall time; parts may overlap.
type spent map[part]time.Duration

type part string

const (
	partStart part = "start" // of sandboxes
	partFetch part = "fetch"
	partSteps part = "steps" // of the Dockerfile
	partPack  part = "pack"  // of layers
	partPush  part = "push"  // or export
	partEnd   part = "end"   // of sandboxes
	partAny   part = "any of them"
)

var allParts = []part{partStart, partFetch, partSteps, partPack, partPush, partEnd}

// event is one of a trace in Chrome's format; times are in microseconds.
type event struct {
	Name     string         `json:"name"`
	Phase    string         `json:"ph"`
	At       float64        `json:"ts"`
	Duration float64        `json:"dur"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args"`
}

// span is a time in microseconds.
type span struct{ from, to float64 }

// readTrace sums up a trace, which is an array of events or an object with one, and
// tells when the first step began; zero: there was none.
func readTrace(text []byte) (out spent, first time.Time, err error) {
	var events []event
	var object struct {
		Events []event `json:"traceEvents"`
	}
	if err = json.Unmarshal(text, &events); err != nil {
		err = json.Unmarshal(text, &object)
		events = object.Events
	}
	if err != nil {
		return nil, first, fmt.Errorf("trace: %w", err)
	}
	type thread struct{ process, id int }
	threads := map[thread]string{}
	for _, e := range events {
		if name, ok := e.Args["name"].(string); ok && e.Phase == "M" && e.Name == "thread_name" {
			threads[thread{e.Process, e.Thread}] = name
		}
	}
	spans := map[part][]span{}
	for _, e := range events {
		p := partOf(e.Name, threads[thread{e.Process, e.Thread}])
		if e.Phase != "X" || p == "" {
			continue
		}
		s := span{e.At, e.At + e.Duration}
		spans[p] = append(spans[p], s)
		spans[partAny] = append(spans[partAny], s)
		if at := time.UnixMicro(int64(e.At)); p == partSteps && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	out = spent{}
	for p, s := range spans {
		out[p] = covered(s)
	}
	return out, first, nil
}

var stepName = regexp.MustCompile(`^\[[^\]]*\d+/\d+\] `)

// partOf tells by a span's name and its thread's, which names the role, what
// part of the build it is; empty: of none, as the work of build, which its steps
// are parts of.
func partOf(name, role string) part {
	word, _, _ := strings.Cut(name, " ")
	switch {
	case word == "wait":
		return ""
	case word == "start":
		return partStart
	case word == "end":
		return partEnd
	case stepName.MatchString(name):
		return partSteps
	case word == "pack":
		return partPack
	case word == "push", word == "export", word == "upload", name == "work push", role == "push":
		return partPush
	case word == "pull", word == "fetch", name == "work fetch", role == "fetch":
		return partFetch
	}
	return ""
}

// covered is the length of what the spans cover together.
func covered(spans []span) time.Duration {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var sum, end float64
	for i, s := range spans {
		if i == 0 || s.from > end {
			end = s.from
		}
		if s.to > end {
			sum += s.to - end
			end = s.to
		}
	}
	return time.Duration(sum * float64(time.Microsecond))
}
