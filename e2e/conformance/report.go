package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// report collects how the cases went.
type report struct {
	allowed  map[string]string
	verbose  bool
	complete bool // all cases were run
	w        io.Writer

	mu         sync.Mutex
	groups     map[string]*tally
	unexpected []string // failed, not listed
	fixed      []string // listed, passed
	seen       map[string]bool
	leftovers  []string
}

type tally struct{ passed, failed int }

func newReport(w io.Writer, allowed map[string]string, verbose, complete bool) *report {
	return &report{
		w: w, allowed: allowed, verbose: verbose, complete: complete,
		groups: map[string]*tally{}, seen: map[string]bool{},
	}
}

// add notes one case. A case that fails and is not listed is shown at once.
func (r *report) add(c *testCase, problems []string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[c.Name] = true
	t := r.groups[c.group()]
	if t == nil {
		t = &tally{}
		r.groups[c.group()] = t
	}
	_, listed := r.allowed[c.Name]
	verdict := "PASS"
	switch {
	case len(problems) == 0:
		t.passed++
		if listed {
			r.fixed = append(r.fixed, c.Name)
			verdict = "FAIL"
			problems = []string{"passes, and stands in the list of those that may fail: remove it"}
		}
	case listed:
		t.failed++
		verdict = "KNOWN"
	default:
		t.failed++
		r.unexpected = append(r.unexpected, c.Name)
		verdict = "FAIL"
	}
	if !r.verbose && (verdict == "PASS" || verdict == "KNOWN" && r.complete) {
		return
	}
	fmt.Fprintf(r.w, "--- %s: %s (%.1fs)\n", verdict, c.Name, took.Seconds())
	if verdict == "KNOWN" && r.complete {
		return
	}
	for _, p := range problems {
		fmt.Fprintln(r.w, "    "+strings.ReplaceAll(p, "\n", "\n    "))
	}
}

// print writes the summary and says whether all is as it has to be.
func (r *report) print() bool {
	w := r.w
	total := tally{}
	fmt.Fprintln(w)
	for _, g := range slices.Sorted(maps.Keys(r.groups)) {
		t := r.groups[g]
		total.passed += t.passed
		total.failed += t.failed
		fmt.Fprintf(w, "%-10s %4d passed %4d failed\n", g, t.passed, t.failed)
	}
	var gone []string
	for name := range r.allowed {
		if r.complete && !r.seen[name] {
			gone = append(gone, name)
		}
	}
	for _, l := range []struct {
		title string
		names []string
	}{
		{"failed, and may not", r.unexpected},
		{"passed, and stands in the list of those that may fail: remove it", r.fixed},
		{"listed, and is not in the suite: remove it", gone},
		{"left behind", r.leftovers},
	} {
		if len(l.names) == 0 {
			continue
		}
		slices.Sort(l.names)
		fmt.Fprintf(w, "\n%s:\n  %s\n", l.title, strings.Join(l.names, "\n  "))
	}
	ok := len(r.unexpected)+len(r.fixed)+len(gone)+len(r.leftovers) == 0
	if known := total.failed - len(r.unexpected); known > 0 {
		fmt.Fprintf(w, "\n%d of those that failed are listed in allowed_failures.txt\n", known)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", total.passed, total.failed)
	return ok
}
