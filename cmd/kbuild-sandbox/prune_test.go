package main

import (
	"strings"
	"testing"
	"time"
)

// TestPruneBefore: what flags say about age, room and all.
func TestPruneBefore(t *testing.T) {
	none := t.TempDir()
	for _, c := range []struct {
		name string
		p    pruning
		age  time.Duration // of what stays; -1: nothing stays
		err  string
	}{
		{"a week", pruning{}, unused, ""},
		{"all", pruning{all: true}, -1, ""},
		{"until", pruning{filters: []string{"until=2h"}}, 2 * time.Hour, ""},
		{"all until", pruning{all: true, filters: []string{"until=2h"}}, 2 * time.Hour, ""},
		{"twice", pruning{filters: []string{"until=2h", "until=1h"}}, 0, "more than once"},
		{"in the future", pruning{filters: []string{"until=-2h"}}, 0, "not supported"},
		{"another filter", pruning{filters: []string{"type=regular"}}, 0, "type=regular: not supported"},
		{"two rooms", pruning{keep: "1g", storage: "2g"}, 0, "cannot be used together"},
		{"no size", pruning{storage: "much"}, 0, "much"},
	} {
		before, err := c.p.before(none)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.age < 0 && !before.IsZero(), c.age >= 0 && (time.Since(before)-c.age).Abs() > time.Minute:
			t.Errorf("%s: before %v", c.name, before)
		}
	}
}
