package take

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
)

// filter is what --exclude leaves out and what --parents asks for. Patterns are
// relative to the directory that is copied. It is not safe for concurrent use.
type filter struct {
	exclude *patternmatcher.PatternMatcher // nil: nothing
	include *patternmatcher.PatternMatcher // nil: everything
	want    []string                       // the components of include's one pattern
}

// matches is what the patterns said about a directory, for what is in it.
type matches struct{ include, exclude patternmatcher.MatchInfo }

func newFilter(exclude []string) (f filter, err error) {
	if len(exclude) > 0 {
		if f.exclude, err = patternmatcher.New(exclude); err != nil {
			return f, fmt.Errorf("invalid --exclude %q: %w", exclude, err)
		}
	}
	return f, nil
}

// parents sets the filter up for one source of --parents. What is before a
// "/./" is the directory to copy from, the rest a pattern of what to take. It
// returns the directory and, if there are no wildcards, the path that must be
// found. Where nothing is left to be matched, as with "." alone, nothing is
// taken and the directory counts as not found, as with BuildKit.
func (f *filter) parents(src string) (dir, required string, err error) {
	dir, pattern, pivot := strings.Cut(src, "/./")
	if !pivot {
		dir, pattern = "/", src
	}
	pattern = strings.TrimPrefix(path.Clean("/"+pattern), "/")
	if f.include, err = patternmatcher.New([]string{pattern}); err != nil {
		return "", "", fmt.Errorf("%q: %w", src, err)
	}
	f.want = strings.Split(pattern, "/")
	if !HasWildcards(dir) && !HasWildcards(pattern) {
		required = path.Join("/", dir, pattern)
	}
	return dir, required, nil
}

// judge says whether sub is to be taken and, for a directory, whether something
// below it may be.
func (f *filter) judge(sub string, parent matches) (take, below bool, m matches, err error) {
	take, below = true, true
	if f.include != nil {
		if take, m.include, err = f.include.MatchesUsingParentResults(sub, parent.include); err != nil {
			return false, false, m, fmt.Errorf("match %q: %w", sub, err)
		}
		below = take || f.mayHold(sub)
	}
	if f.exclude != nil {
		var drop bool
		if drop, m.exclude, err = f.exclude.MatchesUsingParentResults(sub, parent.exclude); err != nil {
			return false, false, m, fmt.Errorf("match %q: %w", sub, err)
		}
		if drop {
			take, below = false, below && f.exclude.Exclusions()
		}
	}
	return take, below, m, nil
}

// mayHold says whether something below the directory sub can match the wanted
// pattern: without it "--parents a/b" would read the whole source.
func (f *filter) mayHold(sub string) bool {
	for i, name := range strings.Split(sub, "/") {
		if i == len(f.want) {
			return false
		}
		if strings.Contains(f.want[i], "**") {
			return true
		}
		if ok, err := path.Match(f.want[i], name); err == nil && !ok {
			return false
		}
	}
	return true
}
