package plan

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Outline is what a target takes from outside, in the order of the lines: its
// own and that of the stages that it needs.
type Outline struct {
	Name        string // of the target, or empty
	Description string // from the comment above its FROM
	Args        []Parameter
	Secrets     []Parameter
	Agents      []Parameter
}

// Parameter is one thing that can be given to a build.
type Parameter struct {
	Name        string
	Value       string // of an argument
	Description string // of an argument, from the comment above it
	Required    bool   // of a secret or an agent
	// Line and EndLine are where it is named first.
	Line, EndLine int
}

// MakeOutline evaluates a target and tells what it takes. The remarks are those of
// a build.
func MakeOutline(ctx context.Context, file *dockerfile.File, opt Options, images Resolver) (*Outline, []Warning, error) {
	m, err := newMaker(file, opt, images)
	if err != nil {
		return nil, nil, err
	}
	p, err := m.make(ctx)
	if err != nil {
		return nil, m.checks.sorted(), err
	}
	stages, _, err := file.Instructions(dockerfile.Silent())
	if err != nil {
		return nil, nil, err
	}
	st := stages[p.Target.ID]
	out := &Outline{Name: st.Name, Description: st.DocComment}
	o := outliner{m: m, seen: map[*draft]bool{}, args: map[string]bool{}, ids: map[string]bool{}, out: out}
	o.visit(m.stages[p.Target.ID])
	for _, list := range [][]Parameter{out.Args, out.Secrets, out.Agents} {
		slices.SortStableFunc(list, func(a, b Parameter) int { return cmp.Compare(a.Line, b.Line) })
	}
	return out, p.Warnings, nil
}

// outliner collects what stages take; of one name only what is met first.
type outliner struct {
	m    *maker
	seen map[*draft]bool
	args map[string]bool
	ids  map[string]bool // type and id of secrets and agents
	out  *Outline
}

// visit collects from a stage, its base and the stages that it reads from.
func (o *outliner) visit(d *draft) {
	if o.seen[d] {
		return
	}
	o.seen[d] = true
	for _, name := range sortedKeys(d.used) {
		o.arg(d, name)
	}
	for _, s := range d.Steps {
		if run, ok := s.Op.(*Run); ok {
			o.mounts(s, run.Mounts)
		}
	}
	if d.base != nil {
		o.visit(d.base)
	}
	for src := range d.reads {
		o.visit(src)
	}
}

// arg collects an argument, and those of the global scope that its default is
// made of. One that nothing in the file defines is not in an outline:
// TARGETARCH is BuildKit's.
func (o *outliner) arg(d *draft, name string) {
	def, ok := d.defined[name]
	if !ok {
		def, ok = o.m.declared[name]
	}
	if !ok || o.args[name] {
		return
	}
	o.args[name] = true
	start, end := dockerfile.Lines(def.at)
	o.out.Args = append(o.out.Args, Parameter{
		Name: name, Value: def.value, Description: def.doc, Line: start, EndLine: end,
	})
	for _, n := range sortedKeys(def.reads) {
		o.arg(d, n)
	}
}

func (o *outliner) mounts(s *Step, mounts []Mount) {
	for _, m := range mounts {
		key := m.Type + " " + m.ID
		p := Parameter{Name: m.ID, Required: m.Required, Line: s.Line, EndLine: s.EndLine}
		switch {
		case o.ids[key]:
			continue
		case m.Type == string(instructions.MountTypeSecret):
			o.out.Secrets = append(o.out.Secrets, p)
		case m.Type == string(instructions.MountTypeSSH):
			o.out.Agents = append(o.out.Agents, p)
		}
		o.ids[key] = true
	}
}

// definition is what an ARG says of an argument.
type definition struct {
	value string // with build arguments taken into account
	doc   string
	at    []parser.Range
	// reads are the global arguments that the default is made of.
	reads map[string]struct{}
}

func define(a instructions.KeyValuePairOptional, at []parser.Range) definition {
	return definition{doc: a.DocComment, at: at}
}

// read notes the variables in the default of an argument. One that has its own
// name is its earlier definition, and stands for what that reads.
func (d *definition) read(names map[string]struct{}, name string, before definition) {
	d.reads = maps.Clone(names)
	if _, self := names[name]; self {
		delete(d.reads, name)
		maps.Copy(d.reads, before.reads)
	}
}

// define notes an ARG of a stage. One without a value of its own, which takes
// that of the global scope, is defined there.
func (m *maker) define(d *draft, a instructions.KeyValuePairOptional, value string, at []parser.Range) {
	d.use(map[string]struct{}{a.Key: {}})
	_, given := m.args[a.Key]
	_, global := m.global.Get(a.Key)
	if a.Value == nil && !given && global {
		return
	}
	if d.defined == nil {
		d.defined = map[string]definition{}
	}
	def := define(a, at)
	def.value = value
	d.defined[a.Key] = def
}

// use notes arguments that a stage uses.
func (d *draft) use(names map[string]struct{}) {
	if d.used == nil {
		d.used = map[string]bool{}
	}
	for n := range names {
		d.used[n] = true
	}
}

// Target is one stage of a Dockerfile, as it is written.
type Target struct {
	Name        string // or empty
	Description string // from the comment above FROM
	Base        string
	Platform    string // of FROM --platform
	Default     bool   // built where no target is named
	// Line and EndLine are those of FROM.
	Line, EndLine int
}

// Targets are the stages of a Dockerfile. Nothing is evaluated.
func Targets(file *dockerfile.File) ([]Target, error) {
	stages, _, err := file.Instructions(dockerfile.Silent())
	if err != nil {
		return nil, err
	}
	var list []Target
	for i, s := range stages {
		start, end := dockerfile.Lines(s.Location)
		list = append(list, Target{
			Name: s.Name, Description: s.DocComment, Base: s.BaseName, Platform: s.Platform,
			Default: i == len(stages)-1, Line: start, EndLine: end,
		})
	}
	return list, nil
}
