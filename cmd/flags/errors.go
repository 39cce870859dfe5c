package flags

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Error is a command line that cannot be carried out.
type Error struct {
	// Msg says what is wrong. It may have several lines, one for each fault.
	Msg string
	// Hint says what to do; it may be empty.
	Hint string
	// Input is true where the command line is well formed, but what it names
	// cannot be used: a file that is not there.
	Input bool
	// Class is the failure's class where a build that begins would fail the
	// same way; empty: none.
	Class request.Class

	err error // the cause, or nil
}

// Error returns Msg.
func (e *Error) Error() string { return e.Msg }

// Unwrap returns the cause, if it is known.
func (e *Error) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func inputf(hint, format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...), Hint: hint, Input: true}
}

// ParseError turns an error of fs.Parse into an *Error with a hint: the nearest
// flag for one that does not exist.
func ParseError(fs *pflag.FlagSet, err error) error {
	var (
		ours    *Error
		missing *pflag.NotExistError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &missing):
		hint := ""
		if near := nearest(fs, missing.GetSpecifiedName()); near != "" {
			hint = "did you mean --" + near + "?"
		}
		return usagef(hint, "%s", missing)
	case errors.As(err, &invalid):
		return usagef("", "--%s: %q: %s", invalid.GetFlag().Name, invalid.GetValue(), plainly(invalid))
	}
	return usagef("", "%s", err)
}

// plainly says what is wrong with a value; Go's number parser does not.
func plainly(invalid *pflag.InvalidValueError) string {
	var number *strconv.NumError
	if !errors.As(invalid, &number) {
		return invalid.Unwrap().Error()
	}
	if number.Func == "ParseBool" {
		return "want true or false"
	}
	return "want a number"
}

// refusal is the error for flags of Kaniko's that are not carried out: a line
// each, and the hint of the first that has one.
func refusal(given []*refused) error {
	lines, hints := make([]string, 0, len(given)), make([]string, 0, len(given))
	for _, r := range given {
		lines = append(lines, r.message())
		if r.hint == "" {
			continue
		}
		if len(given) == 1 {
			hints = append(hints, r.hint)
		} else {
			hints = append(hints, fmt.Sprintf("--%s: %s", r.name, r.hint))
		}
	}
	return &Error{Msg: strings.Join(lines, "\n"), Hint: strings.Join(hints, "\n")}
}

// nearest is the flag whose name is closest to name: at most a third of its
// letters differ. A flag that would be refused is never proposed.
func nearest(fs *pflag.FlagSet, name string) string {
	best, bestDistance := "", max(1, len(name)/3)+1
	fs.VisitAll(func(f *pflag.Flag) {
		if _, no := f.Value.(refusedValue); no || f.Hidden || len(name) < 2 {
			return
		}
		if d := distance(name, f.Name); d < bestDistance {
			best, bestDistance = f.Name, d
		}
	})
	return best
}

// distance is the Levenshtein distance of two short words, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
