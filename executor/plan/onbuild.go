package plan

import (
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// recordTrigger is ONBUILD: the text goes into the config, and not into history.
func (m *maker) recordTrigger(d *draft, i *instructions.OnbuildCommand) error {
	d.Image.Config.OnBuild = append(d.Image.Config.OnBuild, i.Expression)
	return m.budget.take(len(i.Expression))
}

// fire puts the triggers of a stage's base before the stage's own commands, and
// says whether one of them reads from a stage. Triggers fire once: the config
// of the stage does not have them any more.
func (m *maker) fire(d *draft) (again bool, err error) {
	if d.fired || d.isBare() {
		return false, nil
	}
	d.fired = true
	var texts []string
	if d.base == nil {
		texts = d.Image.Config.OnBuild
		d.Image.Config.OnBuild = nil
	} else {
		for _, c := range d.base.commands {
			if i, ok := c.Command.(*instructions.OnbuildCommand); ok {
				texts = append(texts, i.Expression)
			}
		}
	}
	triggers := make([]command, 0, len(texts)+len(d.commands))
	for _, text := range texts {
		inst, err := dockerfile.Trigger(text, d.at, dockerfile.Silent())
		if err != nil {
			return false, dockerfile.At(err, request.ClassParse, d.at)
		}
		c := command{Command: inst, trigger: text}
		if err := m.linkCommand(&c); err != nil {
			return false, err
		}
		again = again || len(c.sources) > 0
		triggers = append(triggers, c)
		if err := m.budget.take(len(text)); err != nil {
			return false, err
		}
	}
	d.total += countSteps(triggers)
	d.commands = append(triggers, d.commands...)
	return again, nil
}
