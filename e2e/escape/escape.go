package escape

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is what became of an attack.
type Outcome string

const (
	// Contained: the build may succeed, the effect is only inside the image.
	Contained Outcome = "CONTAINED"
	// Rejected: the build fails with the error expected, nothing is pushed.
	Rejected Outcome = "REJECTED"
	// Inert: what the attack needs is not there.
	Inert Outcome = "INERT"
	// Limited: a resource ran out, for this build only.
	Limited Outcome = "LIMITED"
)

// Attack is a row of the attack list.
type Attack struct {
	ID      int
	Section string // "2A"
	Source  string // CVE-..., GHSA-..., an issue, or "class"
	Title   string // what is tried, in a line
	Want    []Outcome
	// NotApplicable says why there is nothing to try. Nothing else is set then
	// but what names the row.
	NotApplicable string

	// Step are lines of a Dockerfile that follow FROM $BUSYBOX and the copying of
	// the helper program to /probe; they stand in a stage of their own, and all
	// attacks' steps share one build. Without Run, the verdicts of probes that the
	// step starts are the outcome. Args are flags that the shared build needs.
	Step string
	Args []string
	// Run tries the attack and says what became of it. It fails the test where
	// that is none of the four.
	Run func(t *Target) Outcome
}

// Section is a part of the attack list.
type Section struct {
	ID, Title string
	Attacks   []Attack
}

// Sections are the attack list.
func Sections() []Section {
	all := slices.Concat(runtimeRows(), buildkitRows(), archiveRows(), layerRows(), storageRows(), podRows(), registryRows(), gitRows(), cacheRows())
	sections := []Section{
		{ID: "2A", Title: "Runtime and namespace boundary"},
		{ID: "2B", Title: "BuildKit"},
		{ID: "2C", Title: "Docker, containerd, archives"},
		{ID: "2D", Title: "buildah, podman, containers-storage"},
		{ID: "2E", Title: "kaniko and in-pod builders"},
		{ID: "2F", Title: "Registries and credentials"},
		{ID: "2G", Title: "Git and contexts"},
		{ID: "2H", Title: "Cache, provenance, logs, resources"},
	}
	for i := range sections {
		for _, a := range all {
			if a.Section == sections[i].ID {
				sections[i].Attacks = append(sections[i].Attacks, a)
			}
		}
	}
	return sections
}

// Name is the attack's name as a test: 001-CVE-2019-5736.
func (a Attack) Name() string {
	word, _, _ := strings.Cut(a.Source, " ")
	return fmt.Sprintf("%03d-%s", a.ID, strings.Trim(strings.ReplaceAll(word, "/", "-"), ",:;"))
}

func (a Attack) wants(o Outcome) bool { return slices.Contains(a.Want, o) }
