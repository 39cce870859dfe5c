package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// drafts reads the FROM lines: all of them, also of stages that are not needed.
func (m *maker) drafts(stages []instructions.Stage) error {
	m.written = len(stages)
	for i, st := range stages {
		d := &draft{
			Stage: &Stage{ID: StageID(i), Name: st.Name},
			at:    st.Location,
		}
		if st.Name == "" {
			d.Name = fmt.Sprintf("stage-%d", i)
		}
		if err := m.from(d, st); err != nil {
			return dockerfile.At(err, request.ClassParse, st.Location)
		}
		if !m.replace(d, st.Name) {
			for _, c := range st.Commands {
				d.commands = append(d.commands, command{Command: c})
			}
		}
		m.enter(d, st.Name)
	}
	return nil
}

// enter adds a stage to those known. Its base may be a stage before it, under
// the exact name; a name used twice means the later one from here on.
func (m *maker) enter(d *draft, name string) {
	m.stages = append(m.stages, d)
	if b, ok := m.byName[d.baseName]; ok && !d.replaced {
		d.base = b
	}
	if name != "" {
		m.byName[strings.ToLower(name)] = d
	}
	if d.base == nil && !d.isScratch() {
		d.total, d.shown = 1, 1 // FROM counts as the first step
	}
	d.total += countSteps(d.commands)
}

// countSteps counts the commands that are shown as steps.
func countSteps(commands []command) int {
	n := 0
	for _, c := range commands {
		switch c.Command.(type) {
		case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
			n++
		}
	}
	return n
}

// from expands a FROM line.
func (m *maker) from(d *draft, st instructions.Stage) error {
	lint := m.checks.lint.WithMergedConfigFromComments(st.Comments)
	res, err := m.expand(m.lex, st.BaseName, m.global)
	m.checks.undeclared(m, res.Unmatched, st.Location, lint)
	if err != nil {
		return err
	}
	if res.Result == "" {
		return dockerfile.Errorf(request.ClassResolve, st.Location, "base name (%s) should not be blank", st.BaseName)
	}
	d.baseName = res.Result
	d.use(res.Matched)
	if st.Platform == "" {
		return nil
	}
	p, err := m.fromPlatform(d, st, lint)
	d.flag = p
	return err
}

// fromPlatform expands FROM --platform.
func (m *maker) fromPlatform(d *draft, st instructions.Stage, lint *linter.Linter) (*ocispec.Platform, error) {
	res, err := m.expand(m.lex, st.Platform, m.global)
	m.checks.undeclared(m, res.Unmatched, st.Location, lint)
	m.checks.redundantPlatform(m, st, res, lint)
	m.checks.constantPlatform(st, res, lint)
	d.use(res.Matched)
	if err != nil {
		return nil, fmt.Errorf("failed to process arguments for platform %s: %w", st.Platform, err)
	}
	if res.Result == "" {
		err := fmt.Errorf("empty platform value from expression %s", st.Platform)
		return nil, m.suggestArg(err, res.Unmatched)
	}
	p, err := platforms.Parse(res.Result)
	if err != nil {
		return nil, m.suggestArg(fmt.Errorf("failed to parse platform %s: %w", st.Platform, err), res.Unmatched)
	}
	return &p, nil
}

// suggestArg adds the global argument that one of the names may have meant.
func (m *maker) suggestArg(err error, names map[string]struct{}) error {
	for _, n := range sortedKeys(names) {
		if hit := m.global.similar(n); hit != "" {
			return fmt.Errorf("%w (did you mean %s?)", err, hit)
		}
	}
	return err
}

// findTarget is the stage that was asked for.
func (m *maker) findTarget() (*draft, error) {
	if m.opt.Target == "" {
		return m.stages[len(m.stages)-1], nil
	}
	if d, ok := m.byName[strings.ToLower(m.opt.Target)]; ok {
		return d, nil
	}
	err := dockerfile.Errorf(request.ClassResolve, nil, "target stage %q could not be found", m.opt.Target)
	if hit := similar(m.opt.Target, m.names()); hit != "" {
		err.Msg += fmt.Sprintf(" (did you mean %s?)", hit)
	}
	if _, num := strconv.Atoi(m.opt.Target); num == nil {
		err.Hint = "a target is given by name: name the stage with FROM ... AS name"
	}
	return nil, err
}

// names are the names of the stages in the Dockerfile.
func (m *maker) names() []string {
	var names []string
	for _, d := range m.stages[:m.written] {
		names = append(names, d.Name)
	}
	return names
}

// source is the stage that a --from or a mount's from names: a stage of the
// Dockerfile by name or number, else an image; nil is scratch. This is the one
// place where such a name gets its meaning.
func (m *maker) source(name string, at []parser.Range) (*draft, error) {
	if i, err := strconv.Atoi(name); err == nil {
		if i < 0 || i >= m.written {
			return nil, dockerfile.Errorf(request.ClassParse, at, "invalid stage index %d", i)
		}
		return m.stages[i], nil
	}
	if d, ok := m.byName[strings.ToLower(name)]; ok {
		return d, nil
	}
	if name == EmptyImage {
		return nil, nil
	}
	for _, d := range m.stages[m.written:] {
		if d.baseName == name {
			return d, nil
		}
	}
	d := &draft{
		Stage:    &Stage{ID: StageID(len(m.stages)), Name: name},
		at:       at,
		baseName: name,
		isImage:  true,
	}
	m.stages = append(m.stages, d)
	return d, nil
}

// maxOptions and maxName bound the search for what a misspelt name may have
// meant: it compares with each option.
const maxOptions, maxName = 500, 200

// similar is the option that a misspelt name may have meant, or empty.
func similar(name string, options []string) string {
	if len(options) > maxOptions || len(name) > maxName {
		return ""
	}
	hit, _ := suggest.Search(name, options, true)
	return hit
}

var errExpansion = errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
