package main

import (
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestVerdicts(t *testing.T) {
	r := result{benchCase: benchCase{name: "A", goals: goals{cold: 0.85, present: 0.7, changedOverSteps: true}}, samples: map[mode]map[string][]sample{}}
	for _, s := range []sample{{wall: 9 * time.Second}, {wall: 8 * time.Second, memory: 3}, {wall: time.Second, memory: 9}} {
		r.add(cold, "ours", s)
	}
	r.add(cold, "buildah", sample{wall: 10 * time.Second})
	r.add(present, "ours", sample{wall: 7500 * time.Millisecond})
	r.add(present, "buildah", sample{wall: 20 * time.Second})
	r.add(changed, "ours", sample{wall: 4 * time.Second, spent: spent{partSteps: 3 * time.Second}})
	r.add(cached, "ours", sample{wall: time.Second})
	for m, want := range map[mode]verdict{
		cold:    {"0.85 of cold", "0.80", "yes"},
		present: {"0.70 of cold", "0.75", "no"},
		changed: {"steps 3.00 + 1.00 s", "4.00 s", "yes"},
		cached:  {"< 1.00 s", "1.00 s", "no"},
	} {
		if got := r.verdict(m); got != want {
			t.Errorf("%s: %q, want %q", m, got, want)
		}
	}
	if memory := r.ours(cold).memory; memory != 3 {
		t.Errorf("memory of the middle is %d", memory)
	}
	text := report([]result{r})
	for _, want := range []string{"| A    | cold    | 8.00   | 10.0      | 0.80  |", "- A: ", "Where ours spent it", "| A    | changed | 4.00   | 0.00                 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestNothingToCompare has no builder but ours, and no trace.
func TestNothingToCompare(t *testing.T) {
	r := result{benchCase: benchCase{goals: goals{cold: 1, present: 1, changedOverSteps: true}}, samples: map[mode]map[string][]sample{}}
	for _, m := range []mode{cold, present, changed} {
		r.add(m, "ours", sample{wall: time.Second})
		if got := r.verdict(m); got != (verdict{"-", "-", "-"}) {
			t.Errorf("%s: %q", m, got)
		}
	}
}

func TestTrace(t *testing.T) {
	const events = `[
		{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{"name":"fetch"}},
		{"name":"thread_name","ph":"M","pid":1,"tid":2,"args":{"name":"build"}},
		{"name":"start fetch","ph":"X","ts":0,"dur":100000,"pid":1,"tid":1,"args":{}},
		{"name":"start build","ph":"X","ts":50000,"dur":100000,"pid":1,"tid":2},
		{"name":"work fetch","ph":"X","ts":100000,"dur":400000,"pid":1,"tid":1},
		{"name":"layer 1","ph":"X","ts":200000,"dur":100000,"pid":1,"tid":1},
		{"name":"work build","ph":"X","ts":100000,"dur":9000000,"pid":1,"tid":2},
		{"name":"[build 2/5] RUN make","ph":"X","ts":1000000,"dur":1000000,"pid":1,"tid":2},
		{"name":"[1/5] RUN pack","ph":"X","ts":3000000,"dur":500000,"pid":1,"tid":2},
		{"name":"pack layer","ph":"X","ts":3000000,"dur":250000,"pid":1,"tid":2},
		{"name":"push example","ph":"X","ts":4000000,"dur":250000,"pid":1,"tid":3},
		{"name":"end build","ph":"X","ts":5000000,"dur":1000,"pid":1,"tid":2}]`
	for _, text := range []string{events, `{"traceEvents":` + events + `}`} {
		got, first, err := readTrace([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if first != time.UnixMicro(1000000) {
			t.Errorf("the first step began at %v", first)
		}
		for p, ms := range map[part]time.Duration{partStart: 150, partFetch: 400, partSteps: 1500, partPack: 250, partPush: 250, partEnd: 1, partAny: 500 + 1000 + 500 + 250 + 1} {
			if got[p] != ms*time.Millisecond {
				t.Errorf("%s: %v, want %d ms", p, got[p], ms)
			}
		}
	}
	if _, _, err := readTrace([]byte("x")); err == nil {
		t.Error("no error for what is no trace")
	}
}

func TestModes(t *testing.T) {
	if got, err := parseModes("cached, cold"); err != nil || len(got) != 2 || got[0] != cached {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseModes(""); err != nil || len(got) != 4 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseModes("warm"); err == nil {
		t.Error("warm is no mode")
	}
}

func TestRecordNewestFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.md")
	for _, section := range []string{"## one\n\nx\n\n", "## two\n"} {
		if err := record(file, section); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if want := recordHead + "\n## two\n\n## one\n\nx\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
}

// TestCases looks for what no case can be without: bases that can be made, and
// for mode changed a file that is in the context.
func TestCases(t *testing.T) {
	for _, c := range append(slices.Clone(allCases), scaleCases()...) {
		if len(c.bases()) == 0 {
			t.Errorf("%s: no base", c.name)
		}
		for _, base := range c.bases() {
			if _, err := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(base, sizedBase), filesBase)); allBases[base] == nil && err != nil {
				t.Errorf("%s: no base %q", c.name, base)
			}
		}
		if c.name != "A" && c.name != "C" && c.name != "copies 1000" && c.name != "steps 1" { // the others take long to write
			continue
		}
		dir := t.TempDir()
		if err := c.context(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			if err := c.change(dir, n); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if c.name == "A" {
			formatted(t, filepath.Join(dir, c.changed))
		}
	}
}

// formatted looks at a changed file as case A's first step does.
func formatted(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := format.Source(text); err != nil || string(want) != string(text) {
		t.Errorf("%s is not formatted: %v", filepath.Base(file), err)
	}
}
