package escape

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	update    = flag.Bool("update", false, "write README.md")
	asUser    = flag.Int("user", 0, "run builds as this user id")
	scorecard = flag.String("scorecard", "", "write the score by section to this file")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() == 0 {
		Inside()
	}
	os.Exit(m.Run())
}

// TestAttacks tries the attack list. -run TestAttacks/019 tries one row.
func TestAttacks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the attacks make namespaces and base images: run as root (-user N builds as another user)")
	}
	site := NewSite(t, binaries(t), *asUser)
	site.Update = *update
	t.Run("000-oracles", func(t *testing.T) { oraclesFire(t, site) })
	t.Run("000-probes", func(t *testing.T) { probesSee(t, site) })
	if run := flag.Lookup("test.run").Value.String(); !strings.Contains(run, "/") {
		site.BuildSteps(t, attacks())
	}
	var mu sync.Mutex
	var scores []Score
	t.Cleanup(func() { writeScorecard(t, scores) })
	for _, a := range attacks() {
		t.Run(a.Name(), func(t *testing.T) {
			t.Parallel()
			s := Score{Attack: a}
			defer func() {
				s.Failed = t.Failed()
				mu.Lock()
				defer mu.Unlock()
				scores = append(scores, s)
			}()
			if a.NotApplicable != "" {
				t.Log("not applicable:", a.NotApplicable)
				return
			}
			var findings []string
			s.Outcome, findings = site.Try(t, a)
			for _, f := range findings {
				t.Error(f)
			}
			if !a.wants(s.Outcome) {
				t.Errorf("the outcome is %s, want %s", s.Outcome, a.Want)
			}
			t.Log(s.Outcome)
		})
	}
}

func attacks() []Attack {
	var all []Attack
	for _, s := range Sections() {
		all = append(all, s.Attacks...)
	}
	return all
}

func writeScorecard(t *testing.T, scores []Score) {
	if *scorecard == "" {
		return
	}
	slices.SortFunc(scores, func(a, b Score) int { return a.ID - b.ID })
	must(t, os.WriteFile(*scorecard, []byte(Scorecard(scores)), 0o644))
}

// binaries is the directory with the product's binaries.
func binaries(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("KBUILD_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	must(t, err)
	for _, name := range []string{"kbuild-sandbox", "kbuild-executor", "runsc"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run make build", err)
		}
	}
	return bin
}

func TestTableIsUpToDate(t *testing.T) {
	want := Table()
	if *update {
		must(t, os.WriteFile("README.md", []byte(want), 0o644))
	}
	got, err := os.ReadFile("README.md")
	if err != nil || string(got) != want {
		t.Errorf("README.md is not what the tables make (%v): go test ./e2e/escape -run Table -update", err)
	}
}

// TestRows wants that every row says what it has to.
func TestRows(t *testing.T) {
	known := map[int]bool{}
	for _, a := range attacks() {
		tried := a.Step != "" || a.Run != nil
		switch {
		case known[a.ID]:
			t.Errorf("two rows have the number %d", a.ID)
		case a.Source == "" || a.Title == "":
			t.Errorf("row %d does not say what it is", a.ID)
		case tried == (a.NotApplicable != "") || tried == (len(a.Want) == 0):
			t.Errorf("row %d is either tried, with an outcome, or not applicable", a.ID)
		}
		known[a.ID] = true
	}
}
