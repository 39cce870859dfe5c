package escape

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"
)

// The steps of all attacks that have one are built at once: a stage for each, and
// a last stage that needs all of them.

// stage is an attack's step as a stage of a Dockerfile.
func (a Attack) stage() string {
	return fmt.Sprintf("FROM $BUSYBOX AS a%03d\nCOPY probe nonce /\n%s\n", a.ID, a.Step)
}

// stepBuild is the build of some attacks' steps.
func stepBuild(attacks []Attack) Build {
	var b Build
	last := "FROM scratch\n"
	for _, a := range attacks {
		b.Dockerfile += a.stage()
		b.Args = append(b.Args, a.Args...)
		last += fmt.Sprintf("COPY --from=a%03d /nonce /n%03d\n", a.ID, a.ID)
	}
	b.Dockerfile += last
	return b
}

// BuildSteps builds all steps at once. If that fails, or is not done, each attack
// builds its own.
func (s *Site) BuildSteps(t testing.TB, attacks []Attack) {
	t.Helper()
	attacks = slices.DeleteFunc(slices.Clone(attacks), func(a Attack) bool { return a.Step == "" })
	target := s.Target(t, 0)
	b := stepBuild(attacks)
	b.Within = 3 * time.Minute
	r := target.Build(b)
	s.steps = &stepsResult{output: r.Output, nonce: target.Nonce, findings: target.findings}
	if r.Status != 0 {
		t.Logf("the steps of all attacks do not build together, status %d", r.Status)
		s.steps = nil
	}
}

// stepsResult is what the build of all steps came to.
type stepsResult struct {
	output, nonce string
	findings      []string
}

// stepOutcome reads what the probes of an attack's step say.
func (t *Target) stepOutcome(a Attack) Outcome {
	t.Helper()
	if t.steps != nil {
		t.findings = append(t.findings, t.steps.findings...)
		t.Nonce = t.steps.nonce
		return t.Verdict(t.steps.output)
	}
	r := t.Build(stepBuild([]Attack{a}))
	if r.Status != 0 {
		t.Fatalf("the step failed with status %d", r.Status)
	}
	return t.Verdict(r.Output)
}

// verdictLine is what a probe says at its end: probe ID NONCE OUTCOME: details.
var verdictLine = regexp.MustCompile(`probe (\d+) (nonce-[0-9a-f]+) ([A-Z]+): (.*)`)

// Verdict is what the probes of this attack say in a build's output. All of them
// have to say the same.
func (t *Target) Verdict(output string) Outcome {
	t.Helper()
	var outcome Outcome
	for _, m := range verdictLine.FindAllStringSubmatch(output, -1) {
		if m[1] != fmt.Sprint(t.ID) || m[2] != t.Nonce {
			continue
		}
		t.Log(m[0])
		if outcome != "" && outcome != Outcome(m[3]) {
			t.Fatalf("two probes disagree: %s and %s", outcome, m[3])
		}
		outcome = Outcome(m[3])
	}
	if outcome == "" {
		t.Fatal("no probe has said anything")
	}
	return outcome
}
