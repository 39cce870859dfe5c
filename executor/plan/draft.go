package plan

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// draft is a stage while it is planned.
type draft struct {
	*Stage
	at       []parser.Range // of FROM, or of the instruction that named an image
	baseName string         // expanded
	base     *draft         // the earlier stage that baseName names, or nil
	isImage  bool           // stands for an image named by --from
	named    *NamedContext  // stands in for the base, or nil
	replaced bool           // named stands in for the whole stage
	flag     *ocispec.Platform
	commands []command
	fired    bool // triggers of the base are in commands
	done     bool // evaluated

	platform ocispec.Platform
	env      *scope // environment of the image, then arguments
	// declared are the arguments in scope, as history shows them.
	declared []argument
	// defined are the arguments that the stage itself gives a default, used those
	// that it declares or that its FROM names, for the outline.
	defined map[string]definition
	used    map[string]bool
	// absolute: a WORKDIR of the Dockerfile has been seen.
	absolute bool
	// last are the places of the last CMD, ENTRYPOINT and HEALTHCHECK.
	cmd, entrypoint, healthcheck *[]parser.Range

	shown, total int // steps named so far, and altogether
}

// command is an instruction with the stages that it reads from.
type command struct {
	instructions.Command
	// sources has one entry for COPY --from and one a mount for RUN; nil: no stage.
	sources []*draft
	trigger string // the text, if it is an ONBUILD trigger
}

// argument is a declared build argument.
type argument struct {
	name, value string
}

// isScratch says whether the stage starts empty.
func (d *draft) isScratch() bool {
	return d.baseName == EmptyImage && d.base == nil && !d.replaced
}

// reads are the stages that the commands read from, in order, with the command.
func (d *draft) reads(yield func(*draft, command) bool) {
	for _, c := range d.commands {
		for _, src := range c.sources {
			if src != nil && !yield(src, c) {
				return
			}
		}
	}
}

// begin gives a draft the config and the variables of its base.
func (m *maker) begin(d *draft) error {
	if b := d.base; b != nil {
		d.Base.Stage = b.Stage
		d.Image = b.Image.clone()
		d.Image.Config.OnBuild = nil
		d.env = b.env.clone()
		d.declared = slices.Clone(b.declared)
		d.absolute = b.absolute
		d.platform = b.platform
	} else {
		d.env = newScope()
	}
	d.Platform = fromOCI(d.platform)
	if d.platform.OS == "windows" {
		return dockerfile.Errorf(request.ClassUnsupported, d.at, "images for windows are not supported")
	}
	img := d.Image
	if err := m.budget.take(d.env.size() + 32*len(d.declared) + img.size()); err != nil {
		return err
	}
	if d.isBare() {
		return nil
	}
	if !img.Config.hasEnv("PATH") {
		img.Config.Env = append(img.Config.Env, defaultPath)
	}
	for _, e := range img.Config.Env {
		name := envName(e)
		d.env.Set(name, e[min(len(name)+1, len(e)):])
	}
	if img.Config.WorkingDir != "" {
		img.Config.WorkingDir = resolvePath(img.Config.WorkingDir, img.Config.WorkingDir)
	}
	return nil
}

// evaluate carries out a stage's instructions on its config and collects the
// steps. Whatever goes wrong is at the instruction's lines.
func (m *maker) evaluate(ctx context.Context, d *draft) error {
	if err := m.begin(d); err != nil {
		return dockerfile.At(err, request.ClassParse, d.at)
	}
	for _, c := range d.commands {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.dispatch(d, c); err != nil {
			return dockerfile.At(err, request.ClassParse, c.Location())
		}
	}
	d.done = true
	return nil
}

// expandCommand expands the variables of an instruction that lets them be
// expanded word by word. ARG sees to that itself: a default that a build
// argument replaces is never looked at.
func (m *maker) expandCommand(d *draft, c command) error {
	if ex, ok := c.Command.(instructions.SupportsSingleWordExpansion); ok && !isArg(c) {
		if err := ex.Expand(m.word(m.lex, d, c)); err != nil {
			return err
		}
	}
	if ex, ok := c.Command.(instructions.SupportsSingleWordExpansionRaw); ok {
		return ex.ExpandRaw(m.word(rawLex(), d, c))
	}
	return nil
}

// dispatch carries out one instruction.
func (m *maker) dispatch(d *draft, c command) error {
	if err := m.expandCommand(d, c); err != nil {
		return err
	}
	lint := m.checks.at(c)
	switch i := c.Command.(type) {
	case *instructions.ArgCommand:
		return m.arg(d, i, lint)
	case *instructions.EnvCommand:
		return m.setEnv(d, i, lint)
	case *instructions.LabelCommand:
		return m.setLabels(d, i, lint)
	case *instructions.MaintainerCommand:
		return m.maintainer(d, i)
	case *instructions.RunCommand:
		return m.run(d, c, i)
	case *instructions.CopyCommand:
		return m.copy(d, c, i, lint)
	case *instructions.AddCommand:
		return m.add(d, c, i, lint)
	case *instructions.WorkdirCommand:
		return m.workdir(d, c, i, lint)
	case *instructions.CmdCommand:
		return m.setCmd(d, i, lint)
	case *instructions.EntrypointCommand:
		return m.setEntrypoint(d, i, lint)
	case *instructions.HealthCheckCommand:
		return m.setHealthcheck(d, i, lint)
	case *instructions.ExposeCommand:
		return m.expose(d, i, lint)
	case *instructions.UserCommand:
		return m.setUser(d, i)
	case *instructions.VolumeCommand:
		return m.setVolumes(d, i)
	case *instructions.StopSignalCommand:
		return m.setStopSignal(d, i)
	case *instructions.ShellCommand:
		return m.setShell(d, i)
	case *instructions.OnbuildCommand:
		return m.recordTrigger(d, i)
	}
	return dockerfile.Errorf(request.ClassUnsupported, c.Location(), "%s is not supported yet", c.Name())
}

// step adds a step to a stage.
func (m *maker) step(d *draft, c command, op Op, name string) error {
	start, end := dockerfile.Lines(c.Location())
	d.Steps = append(d.Steps, &Step{Op: op, Name: m.title(d, c, name), Line: start, EndLine: end, Trigger: c.trigger})
	return m.budget.take(len(name))
}

// title is a step's name as BuildKit shows it: [stage 2/5] RUN make.
func (m *maker) title(d *draft, c command, name string) string {
	stage := d.Name + " "
	if len(m.stages) == 1 {
		stage = ""
	}
	if m.opt.Several {
		stage = platforms.FormatAll(d.platform) + crossing(d.platform, d.env) + " " + stage
	}
	d.shown++
	if c.trigger != "" {
		name = "ONBUILD " + name
	}
	return fmt.Sprintf("[%s%*d/%d] %s", stage, len(fmt.Sprint(d.total)), d.shown, d.total, name)
}
