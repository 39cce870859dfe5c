package escape

import (
	"fmt"
	"strings"
)

// Score is what became of an attack in a run.
type Score struct {
	Attack
	Outcome Outcome
	Failed  bool
}

// Scorecard is the score by section, in plain text. Attacks that were not tried
// are not counted.
func Scorecard(scores []Score) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-4s %-40s %6s %7s %15s %7s\n", "", "section", "rows", "passed", "not applicable", "failed")
	var total [4]int
	var failed, na []string
	for _, section := range Sections() {
		var n [4]int
		for _, s := range scores {
			if s.Section != section.ID {
				continue
			}
			n[0]++
			switch {
			case s.NotApplicable != "":
				n[2]++
				na = append(na, fmt.Sprintf("%03d %s: %s", s.ID, s.Source, s.NotApplicable))
			case s.Failed:
				n[3]++
				failed = append(failed, s.Name())
			default:
				n[1]++
			}
		}
		for i := range n {
			total[i] += n[i]
		}
		fmt.Fprintf(&b, "%-4s %-40s %6d %7d %15d %7d\n", section.ID, section.Title, n[0], n[1], n[2], n[3])
	}
	fmt.Fprintf(&b, "%-4s %-40s %6d %7d %15d %7d\n", "", "all", total[0], total[1], total[2], total[3])
	for _, line := range na {
		fmt.Fprintln(&b, "not applicable:", line)
	}
	for _, line := range failed {
		fmt.Fprintln(&b, "failed:", line)
	}
	return b.String()
}

// Table is README.md.
func Table() string {
	var b strings.Builder
	b.WriteString(`# Attacks

What was done to other builders and runtimes, tried here. ` + "`make attack`" + ` tries all of it
with the built binaries and prints the score; it needs root, for the namespaces
that it runs in. One row: ` + "`make attack ROWS=019`" + `. What counts as passed stands in
[doc.go](doc.go).

CONTAINED: the build may succeed, the effect is only inside the image. REJECTED: it
fails with the error expected, and nothing is pushed. INERT: what the attack needs
is not there. LIMITED: a resource ran out, for this build only.

This file is made from the tables in rows_*.go by ` + "`make golden`" + `.
`)
	for _, s := range Sections() {
		fmt.Fprintf(&b, "\n## %s %s\n\n| row | known as | what is tried | outcome |\n|---|---|---|---|\n", s.ID, s.Title)
		for _, a := range s.Attacks {
			fmt.Fprintf(&b, "| %03d | %s | %s | %s |\n", a.ID, cell(a.Source), cell(a.Title), a.outcomes())
		}
	}
	return b.String()
}

func (a Attack) outcomes() string {
	if a.NotApplicable != "" {
		return "not applicable: " + cell(a.NotApplicable)
	}
	var all []string
	for _, o := range a.Want {
		all = append(all, string(o))
	}
	return strings.Join(all, " or ")
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
