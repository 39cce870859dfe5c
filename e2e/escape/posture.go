package escape

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// posture compares the digest of what a build measured of its walls, which stands
// in its provenance, with that of other builds of the same form: no Dockerfile and
// no context changes them.
func (t *Target) posture(r *Result) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(t.Dir, "out", "provenance.json"))
	must(t, err)
	var statement struct {
		Predicate struct {
			BuildDefinition struct {
				InternalParameters struct {
					Posture map[string]string `json:"posture"`
				} `json:"internalParameters"`
			} `json:"buildDefinition"`
		} `json:"predicate"`
	}
	must(t, json.Unmarshal(b, &statement))
	got := statement.Predicate.BuildDefinition.InternalParameters.Posture["sha256"]
	if got == "" {
		return []string{"posture: none was measured"}
	}
	form := fmt.Sprintf("pushed %t", r.Ref != "")
	t.postures.Lock()
	defer t.postures.Unlock()
	if t.postureOf == nil {
		t.postureOf = map[string]string{}
	}
	want, known := t.postureOf[form]
	if !known {
		t.postureOf[form] = got
		return nil
	}
	if got != want {
		return []string{fmt.Sprintf("posture: %s, and was %s", got, want)}
	}
	return nil
}
