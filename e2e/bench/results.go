package main

import (
	"fmt"
	"strings"
	"time"
)

// goals are parts of buildah's wall time in the cold build of the same run; 0:
// there is no goal.
type goals struct {
	cold, present    float64
	changedOverSteps bool // the changed build may take what its steps take and changedMore
}

const (
	cachedGoal  = time.Second // of every case
	changedMore = time.Second
)

// result is what was measured of a case.
type result struct {
	benchCase
	samples map[mode]map[string][]sample // by builder
}

func (r *result) add(m mode, who string, s sample) {
	if r.samples[m] == nil {
		r.samples[m] = map[string][]sample{}
	}
	r.samples[m][who] = append(r.samples[m][who], s)
}

func (r *result) ours(m mode) sample    { return median(r.samples[m]["ours"]) }
func (r *result) buildah(m mode) sample { return median(r.samples[m]["buildah"]) }

// verdict is a goal and what came of it: "-" where there is none or nothing to
// compare.
type verdict struct{ goal, here, met string }

func (r *result) verdict(m mode) verdict {
	ours, none := r.ours(m).wall, verdict{"-", "-", "-"}
	if ours == 0 {
		return none
	}
	part := r.goals.cold
	switch m {
	case cached:
		return verdict{"< " + seconds(cachedGoal) + " s", seconds(ours) + " s", yes(ours < cachedGoal)}
	case changed:
		steps, known := r.ours(m).spent[partSteps]
		if !r.goals.changedOverSteps || !known {
			return none
		}
		return verdict{fmt.Sprintf("steps %s + %s s", seconds(steps), seconds(changedMore)), seconds(ours) + " s", yes(ours <= steps+changedMore)}
	case present:
		part = r.goals.present
	}
	theirs := r.buildah(cold).wall
	if part == 0 || theirs == 0 {
		return none
	}
	ratio := ours.Seconds() / theirs.Seconds()
	return verdict{fmt.Sprintf("%.2f of cold", part), fmt.Sprintf("%.2f", ratio), yes(ratio <= part)}
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

// seconds is short for what is long, as more digits would be noise.
func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.2f", d.Seconds())
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}

// report is all tables of a run.
func report(results []result) string {
	walls := [][]string{{"case", "mode", "ours s", "buildah s", "ratio", "goal", "here", "met", "ours MiB", "buildah MiB"}}
	parts := [][]string{{"case", "mode", "wall s", "until the first step"}}
	for _, p := range allParts {
		parts[0] = append(parts[0], string(p))
	}
	parts[0] = append(parts[0], "none of these")
	var names []string
	for _, r := range results {
		names = append(names, "- "+r.name+": "+r.what)
		for _, m := range allModes {
			if len(r.samples[m]) == 0 {
				continue
			}
			walls = append(walls, r.wallRow(m))
			if s := r.ours(m); s.spent != nil {
				parts = append(parts, append([]string{r.name, string(m)}, s.partRow()...))
			}
		}
	}
	out := table(walls)
	if len(parts) > 1 {
		out += "\nWhere ours spent it, in seconds of the run with the middle wall time; parts overlap:\n\n" + table(parts)
	}
	return strings.Join(names, "\n") + "\n\n" + out
}

func (r *result) wallRow(m mode) []string {
	ours, theirs, v := r.ours(m), r.buildah(m), r.verdict(m)
	row := []string{r.name, string(m), "-", "-", "-", v.goal, v.here, v.met, "-", "-"}
	if ours.wall > 0 {
		row[2], row[8] = seconds(ours.wall), fmt.Sprint(ours.memory>>20)
	}
	if theirs.wall > 0 {
		row[3], row[9] = seconds(theirs.wall), fmt.Sprint(theirs.memory>>20)
	}
	if ours.wall > 0 && theirs.wall > 0 {
		row[4] = fmt.Sprintf("%.2f", ours.wall.Seconds()/theirs.wall.Seconds())
	}
	return row
}

func (s sample) partRow() []string {
	row := []string{seconds(s.wall), seconds(s.first)}
	for _, p := range allParts {
		row = append(row, seconds(s.spent[p]))
	}
	return append(row, seconds(max(0, s.wall-s.spent[partAny])))
}

// table writes rows, the first of which are the headings, as a table that can be
// read both as it is and as Markdown.
func table(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	var out strings.Builder
	line := func(row []string) {
		for i, cell := range row {
			fmt.Fprintf(&out, "| %-*s ", width[i], cell)
		}
		out.WriteString("|\n")
	}
	line(rows[0])
	for _, w := range width {
		out.WriteString("|" + strings.Repeat("-", w+2))
	}
	out.WriteString("|\n")
	for _, row := range rows[1:] {
		line(row)
	}
	return out.String()
}
