package plan

import (
	"context"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// link finds what each COPY and RUN reads from, in all stages, and refuses
// stages that read from each other in a circle.
func (m *maker) link() error {
	for _, d := range m.stages[:m.written] {
		for i := range d.commands {
			if err := m.linkCommand(&d.commands[i]); err != nil {
				return err
			}
		}
	}
	return m.circles()
}

// linkCommand finds what one command reads from.
func (m *maker) linkCommand(c *command) error {
	switch i := c.Command.(type) {
	case *instructions.CopyCommand:
		if i.From == "" {
			return nil
		}
		res, err := m.expand(m.lex, i.From, newScope())
		if err == nil && res.Result != i.From {
			err = errExpansion
		}
		if err != nil {
			return dockerfile.At(err, request.ClassParse, c.Location())
		}
		src, err := m.source(i.From, c.Location())
		c.sources = []*draft{src}
		return err
	case *instructions.RunCommand:
		for _, mount := range instructions.GetMounts(i) {
			var src *draft
			if mount.From != "" {
				var err error
				if src, err = m.source(mount.From, c.Location()); err != nil {
					return err
				}
			}
			c.sources = append(c.sources, src)
		}
	}
	return nil
}

// circles refuses stages that read from each other.
func (m *maker) circles() error {
	visited, path := map[*draft]bool{}, map[*draft]bool{}
	var visit func(d *draft) *command
	visit = func(d *draft) *command {
		if visited[d] {
			return nil
		}
		visited[d], path[d] = true, true
		defer delete(path, d)
		for src, c := range d.reads {
			if path[src] {
				return &c
			}
			if closing := visit(src); closing != nil {
				return closing
			}
		}
		return nil
	}
	for _, d := range m.stages {
		if c := visit(d); c != nil {
			return dockerfile.Errorf(request.ClassParse, c.Location(), "circular dependency detected on stage: %s", d.Name)
		}
	}
	return nil
}

// prepare resolves the base images of what the target needs and fires their
// triggers, which may need further stages, until nothing new is needed. The
// stages come in an order in which they can be evaluated: images, then those of
// the Dockerfile as written.
func (m *maker) prepare(ctx context.Context, target *draft) ([]*draft, error) {
	for {
		needed := m.needed(target)
		if err := m.resolve(ctx, needed); err != nil {
			return nil, err
		}
		again := false
		for _, d := range m.stages {
			if !needed[d] {
				continue
			}
			more, err := m.fire(d)
			if err != nil {
				return nil, err
			}
			again = again || more
		}
		if !again {
			return m.order(needed), nil
		}
		if err := m.circles(); err != nil {
			return nil, err
		}
	}
}

// order puts stages into the order of evaluation: what only stands for files
// comes first.
func (m *maker) order(needed map[*draft]bool) []*draft {
	var bare, list []*draft
	for _, d := range m.stages {
		switch {
		case !needed[d]:
		case d.isBare():
			bare = append(bare, d)
		default:
			list = append(list, d)
		}
	}
	return append(bare, list...)
}

// needed are the stages that have to be evaluated.
func (m *maker) needed(target *draft) map[*draft]bool {
	if !m.opt.AllStages {
		return reachable(target)
	}
	all := map[*draft]bool{}
	for _, d := range m.stages {
		all[d] = true
	}
	return all
}

// reachable are the stages that a stage stands on or reads from, itself included.
func reachable(target *draft) map[*draft]bool {
	found := map[*draft]bool{}
	todo := []*draft{target}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if found[d] {
			continue
		}
		found[d] = true
		if d.base != nil {
			todo = append(todo, d.base)
		}
		for src := range d.reads {
			todo = append(todo, src)
		}
	}
	return found
}
