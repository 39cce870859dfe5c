package sandbox

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestChecks(t *testing.T) {
	b := testFiles(t)
	p := Place{Runsc: b.runsc, Executor: b.guest, WorkDir: filepath.Join(b.dir, "doctor")}
	byName := func(p Place) map[string]Check {
		out := map[string]Check{}
		for _, c := range Checks(t.Context(), p) {
			if c.OK != (c.Fix == "") || c.Found == "" {
				t.Errorf("%+v: found must be there, and a fix if it is not in order", c)
			}
			out[c.Name] = c
		}
		return out
	}
	for name, c := range byName(p) {
		t.Logf("%-16s %v %s", name, c.OK, c.Found)
		if !c.OK {
			t.Errorf("%s: %s (%s)", name, c.Found, c.Fix)
		}
	}
	p.Runsc = "/nowhere/runsc"
	if c := byName(p); c["runsc"].OK || c["sandbox"].OK {
		t.Error("runsc is missing, and all is in order")
	}
	p.Runsc, p.Executor = b.runsc, "/nowhere/executor"
	if c := byName(p); c["executor"].OK || c["sandbox"].OK {
		t.Error("the executor is missing, and all is in order")
	}
	p.WorkDir = "/" + strings.Repeat("x", 100)
	if c := byName(p); c["work directory"].OK {
		t.Error("a path too long is in order")
	}
}
