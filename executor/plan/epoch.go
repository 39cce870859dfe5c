package plan

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// sourceDateEpoch is the argument that sets the time of the image: seconds
// since 1970, or a source whose time is taken, as BuildKit has it: "context", a
// named context, or a stage that is nothing but one remote ADD.
const sourceDateEpoch = "SOURCE_DATE_EPOCH"

// Epochs finds the times of sources. A source without a time, such as a local
// directory, has nil.
type Epochs interface {
	// ContextTime is the time of a named context, or of the build context,
	// whose name is empty: the commit's, or what the server says.
	ContextTime(ctx context.Context, name string) (*time.Time, error)
	// RemoteTime is the time of what an ADD would fetch.
	RemoteTime(ctx context.Context, r Remote) (*time.Time, error)
}

// epoch settles the time of the image and what SOURCE_DATE_EPOCH is in the
// Dockerfile. A source without a time leaves the argument unset.
func (m *maker) epoch(ctx context.Context, stages []instructions.Stage) error {
	if !m.opt.Created.IsZero() {
		t := m.opt.Created.UTC()
		m.created = &t
	}
	value, given := m.args[sourceDateEpoch]
	if !given {
		value, _ = m.global.Get(sourceDateEpoch)
	}
	if value == "" && !given {
		return nil
	}
	t, err := m.epochTime(ctx, value, stages)
	if err != nil {
		return dockerfile.At(err, request.ClassParse, nil)
	}
	if t == nil {
		delete(m.args, sourceDateEpoch)
		m.global.Unset(sourceDateEpoch)
		return nil
	}
	text := strconv.FormatInt(t.Unix(), 10)
	if given {
		m.args[sourceDateEpoch] = text
	}
	if _, ok := m.global.Get(sourceDateEpoch); ok {
		m.global.Set(sourceDateEpoch, text)
	}
	m.created = t
	return nil
}

// epochTime is what a value of SOURCE_DATE_EPOCH means; nil: nothing.
func (m *maker) epochTime(ctx context.Context, value string, stages []instructions.Stage) (*time.Time, error) {
	if value == "" {
		return nil, nil
	}
	invalid := dockerfile.Errorf(request.ClassParse, nil, "invalid %s: %s", sourceDateEpoch, value)
	invalid.Hint = "it is a number of seconds since 1970, context, or the name of a named context or of a stage"
	t, err := m.epochOf(ctx, value, stages)
	switch {
	case errors.Is(err, errNoSource):
		return nil, invalid
	case err != nil || t == nil:
		return nil, err
	case t.Year() < 0 || t.Year() > 9999: // what JSON can tell
		return nil, invalid
	}
	whole := time.Unix(t.Unix(), 0).UTC()
	return &whole, nil
}

// errNoSource is a value of SOURCE_DATE_EPOCH that names nothing.
var errNoSource = errors.New("no such source")

func (m *maker) epochOf(ctx context.Context, value string, stages []instructions.Stage) (*time.Time, error) {
	if sec, err := strconv.ParseInt(value, 10, 64); err == nil {
		t := time.Unix(sec, 0).UTC()
		return &t, nil
	}
	if value == "context" {
		return m.contextTime(ctx, "")
	}
	switch c := m.contexts.find(value, m.target); {
	case c == nil:
	case c.Image != "":
		return nil, nil
	default:
		return m.contextTime(ctx, c.Name)
	}
	for _, s := range stages {
		if s.Name == "" || !strings.EqualFold(s.Name, value) {
			continue
		}
		t, err := m.stageTime(ctx, s)
		if err != nil {
			return nil, dockerfile.At(err, request.ClassParse, s.Location)
		}
		return t, nil
	}
	return nil, errNoSource
}

func (m *maker) contextTime(ctx context.Context, name string) (*time.Time, error) {
	if m.opt.Epochs == nil {
		return nil, nil
	}
	return m.opt.Epochs.ContextTime(ctx, name)
}

// stageTime is the time of the one thing that a stage of source form adds.
func (m *maker) stageTime(ctx context.Context, s instructions.Stage) (*time.Time, error) {
	env := m.global.clone()
	env.Unset(sourceDateEpoch)
	base, err := m.expand(m.lex, s.BaseName, env)
	if err != nil {
		return nil, err
	}
	if base.Result != "scratch" {
		return nil, errors.New(sourceDateEpoch + " stage must use FROM scratch")
	}
	var found *Remote
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.ArgCommand:
			if err := m.stageArgs(c, env); err != nil {
				return nil, err
			}
		case *instructions.AddCommand:
			if found != nil {
				return nil, errOneAdd
			}
			if found, err = m.epochRemote(c, env); err != nil {
				return nil, err
			}
		default:
			return nil, errors.New(sourceDateEpoch + " stage does not meet source-only requirements: unsupported " + c.Name() + " instruction")
		}
	}
	if found == nil {
		return nil, errOneAdd
	}
	if m.opt.Epochs == nil {
		return nil, nil
	}
	return m.opt.Epochs.RemoteTime(ctx, *found)
}

var errOneAdd = errors.New(sourceDateEpoch + " stage must contain exactly one remote ADD")

// stageArgs declares the arguments of one ARG.
func (m *maker) stageArgs(c *instructions.ArgCommand, env *scope) error {
	for _, a := range c.Args {
		if given, ok := m.args[a.Key]; ok {
			env.Set(a.Key, given)
			continue
		}
		if a.Value == nil {
			continue
		}
		res, err := m.expand(m.lex, *a.Value, env)
		if err != nil {
			return err
		}
		env.Set(a.Key, res.Result)
	}
	return nil
}

// epochRemote is what an ADD of a stage of source form fetches.
func (m *maker) epochRemote(c *instructions.AddCommand, env *scope) (*Remote, error) {
	if len(c.SourceContents) != 0 || len(c.SourcePaths) != 1 {
		return nil, errors.New(sourceDateEpoch + " stage must contain exactly one remote ADD source")
	}
	add := *c
	add.SourcePaths = slices.Clone(c.SourcePaths)
	for _, text := range []*string{&add.SourcePaths[0], &add.Checksum} {
		res, err := m.expand(m.lex, *text, env)
		if err != nil {
			return nil, err
		}
		*text = res.Result
	}
	if err := checkChecksum(&add); err != nil {
		return nil, err
	}
	remote, err := newRemote(&add, add.SourcePaths[0])
	switch {
	case err != nil:
		return nil, err
	case remote != nil:
		return remote, nil
	}
	return nil, errors.New(sourceDateEpoch + " stage source must be a single HTTP(S) or Git ADD")
}
