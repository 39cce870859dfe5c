package sandbox

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestPhases: the phases of each role, and the launcher's own, follow each other from
// the begin of a build to its end, whether it succeeds or not.
func TestPhases(t *testing.T) {
	begin := []string{"start", "check walls"}
	for name, tt := range map[string]struct {
		act   string
		build []string // the phases of build, behind its begin
	}{
		"all is well": {"@fetch ok\nok\n@push ok", []string{"wait", "work", "end"}},
		"fetch fails": {"@fetch fail\nok\n@push ok", nil},
		"build dies":  {"exit", []string{"wait", "work", "end"}},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			last := map[request.Role]time.Time{}
			got := map[request.Role][]string{}
			began := time.Now()
			_, _, _ = run(t, newJob(t, tt.act), func(c *Config) {
				if tt.build != nil {
					pushing(c)
				}
				c.Sink = sinkFunc(func(e request.Event) {
					if e.Kind != request.EventPhase {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					if end := last[e.Role]; !end.IsZero() && !e.Time.Equal(end) || e.Time.Before(began) {
						t.Errorf("%s of %q begins at %v, not at %v", e.Name, e.Role, e.Time, end)
					}
					last[e.Role] = e.Time.Add(time.Duration(e.Total))
					got[e.Role] = append(got[e.Role], e.Name)
				})
			})
			if d := cmp.Diff([]string{"prepare", "sandboxes", "keep", "clean up"}, got[""]); d != "" {
				t.Error(d)
			}
			for role, names := range map[request.Role][]string{
				request.RoleFetch: append(begin, "work", "end"), request.RoleBuild: append(begin, tt.build...),
			} {
				if role == request.RoleBuild && tt.build == nil {
					continue // where it was, nobody knows
				}
				var want []string
				for _, n := range names {
					want = append(want, fmt.Sprint(n, " ", role))
				}
				if d := cmp.Diff(want, got[role]); d != "" {
					t.Error(d)
				}
			}
		})
	}
}
