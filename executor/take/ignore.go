package take

import (
	"path"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
)

// Ignore matches paths against the patterns of an ignore file, in BuildKit's
// way: the last pattern that matches a path or one of its parents decides, and
// one with "!" brings back.
type Ignore struct {
	mu      sync.Mutex // the matcher compiles patterns when it first uses them
	matcher *patternmatcher.PatternMatcher
	back    [][]string // the components of the patterns with "!"
	// dirs remembers what matched a directory: what is in it is asked for next,
	// and only has to be matched by its own name.
	dirs map[string]verdict
}

type verdict struct {
	hidden bool
	info   patternmatcher.MatchInfo
}

// NewIgnore returns nil if there are no patterns.
func NewIgnore(patterns []string) (*Ignore, error) {
	m, err := patternmatcher.New(patterns)
	if err != nil || len(m.Patterns()) == 0 {
		return nil, err
	}
	ig := &Ignore{matcher: m, dirs: map[string]verdict{}}
	for _, p := range m.Patterns() {
		if p.Exclusion() {
			ig.back = append(ig.back, strings.Split(p.String(), "/"))
		}
	}
	return ig, nil
}

// Excluded is Source.Excluded; nil hides nothing.
func (ig *Ignore) Excluded(rel string, dir bool) (bool, error) {
	switch {
	case ig == nil || rel == "" || rel == ".":
		return false, nil
	case dir:
		return ig.hidesAll(rel)
	}
	return ig.hides(rel)
}

// hides says whether rel itself is hidden.
func (ig *Ignore) hides(rel string) (bool, error) {
	ig.mu.Lock()
	defer ig.mu.Unlock()
	v, err := ig.match(rel)
	return v.hidden, err
}

// hidesAll says whether rel and everything that could be below it is hidden.
func (ig *Ignore) hidesAll(rel string) (bool, error) {
	ig.mu.Lock()
	defer ig.mu.Unlock()
	v, err := ig.dir(rel)
	if err != nil || !v.hidden {
		return false, err
	}
	names := strings.Split(rel, "/")
	for _, p := range ig.back {
		if mayMatchBelow(p, names) {
			return false, nil
		}
	}
	return true, nil
}

// dir is match for a directory, remembered.
func (ig *Ignore) dir(rel string) (verdict, error) {
	if v, ok := ig.dirs[rel]; ok {
		return v, nil
	}
	v, err := ig.match(rel)
	if err == nil {
		ig.dirs[rel] = v
	}
	return v, err
}

func (ig *Ignore) match(rel string) (v verdict, err error) {
	var parent verdict
	if dir := path.Dir(rel); dir != "." {
		if parent, err = ig.dir(dir); err != nil {
			return v, err
		}
	}
	v.hidden, v.info, err = ig.matcher.MatchesUsingParentResults(rel, parent.info)
	return v, err
}

// mayMatchBelow says whether a pattern, given in components, could match a path
// below the directory dir. It errs on the side of yes.
func mayMatchBelow(pattern, dir []string) bool {
	for i, name := range dir {
		if i == len(pattern) {
			return false
		}
		p := pattern[i]
		if strings.Contains(p, "**") {
			return true
		}
		if strings.ContainsAny(p, `[\`) {
			continue
		}
		if ok, err := path.Match(p, name); err == nil && !ok {
			return false
		}
	}
	return len(pattern) > len(dir)
}
