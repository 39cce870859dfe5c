package language

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Case is what the comment of a case says.
type Case struct {
	Name  string // group/name
	About string // what it pins, one line
	Rows  []string
	// Buildah says how buildah compares: empty (not built with it), "same", or
	// the reason why it differs, which is then a known difference.
	Buildah string
	// BuildKit is the reason why the answer is not BuildKit's; mostly empty.
	BuildKit string
	// Fails says that the build has to fail, with messages that have Words.
	Fails bool
	Words []string
}

// ReadComment reads the comment of a case: its lines are text, "row: 2.4 key",
// "buildah: same", "buildah: differs: reason" or "buildkit: differs: reason".
func ReadComment(comment string) (*Case, error) {
	c := &Case{}
	var about []string
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "row":
			c.Rows = append(c.Rows, value)
		case "buildah", "buildkit":
			reason, differs := strings.CutPrefix(value, "differs: ")
			switch {
			case differs && name == "buildkit":
				c.BuildKit = reason
			case differs || value == "same" && name == "buildah":
				c.Buildah = reason
			default:
				return nil, fmt.Errorf("%q: want differs: and the reason, or for buildah same", line)
			}
		default:
			about = append(about, line)
		}
	}
	c.About = strings.TrimSpace(strings.Join(about, " "))
	return c, nil
}

// ReadCases reads all cases below dir/cases, sorted by name.
func ReadCases(dir string) ([]*Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "cases", "*", "*.txtar"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var cases []*Case
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			return nil, err
		}
		c, err := ReadComment(string(a.Comment))
		if err == nil {
			err = c.readWant(a)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		c.Name = filepath.Base(filepath.Dir(file)) + "/" + strings.TrimSuffix(filepath.Base(file), ".txtar")
		cases = append(cases, c)
	}
	return cases, nil
}

func (c *Case) readWant(a *txtar.Archive) error {
	for _, f := range a.Files {
		if f.Name != "want.json" {
			continue
		}
		var want struct {
			Error *struct{ Contains []string }
		}
		if err := json.Unmarshal(f.Data, &want); err != nil {
			return fmt.Errorf("want.json: %w", err)
		}
		if want.Error != nil {
			c.Fails, c.Words = true, want.Error.Contains
		}
		return nil
	}
	return fmt.Errorf("no want.json")
}
