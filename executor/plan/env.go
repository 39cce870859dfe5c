package plan

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// setEnv is ENV. All its values are expanded before the first is set.
func (m *maker) setEnv(d *draft, i *instructions.EnvCommand, lint *linter.Linter) error {
	var text strings.Builder
	text.WriteString("ENV")
	for _, e := range i.Env {
		m.checks.legacy(e, i.Name(), i.Location(), lint)
		m.checks.secret("ENV", e.Key, i.Location(), lint)
		if err := checkValue("ENV", e.Key, e.Value); err != nil {
			return err
		}
		text.WriteString(" " + e.String())
		d.env.Set(e.Key, e.Value)
		d.Image.Config.setEnv(e.Key, e.Value)
	}
	return m.record(d, text.String(), false)
}

// setLabels is LABEL.
func (m *maker) setLabels(d *draft, i *instructions.LabelCommand, lint *linter.Linter) error {
	c := &d.Image.Config
	if c.Labels == nil {
		c.Labels = make(map[string]string, len(i.Labels))
	}
	var text strings.Builder
	text.WriteString("LABEL")
	for _, l := range i.Labels {
		m.checks.legacy(l, i.Name(), i.Location(), lint)
		c.Labels[l.Key] = l.Value
		text.WriteString(" " + l.String())
	}
	return m.record(d, text.String(), false)
}

// label puts the labels that the user gave on the image.
func (m *maker) label(d *draft) {
	c := &d.Image.Config
	if c.Labels == nil && len(m.opt.Labels) > 0 {
		c.Labels = make(map[string]string, len(m.opt.Labels))
	}
	for _, kv := range m.opt.Labels {
		c.Labels[kv.Key] = kv.Value
	}
}
