package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// PipesDir is where the files of a RUN (Run.Files) are, as in BuildKit.
const PipesDir = "/dev/pipes"

// run is RUN.
func (m *maker) run(d *draft, c command, i *instructions.RunCommand) error {
	if err := m.granted(i); err != nil {
		return err
	}
	cfg := &d.Image.Config
	argv, files, err := commandLine(i)
	if err != nil {
		return err
	}
	text := i.String()
	if len(i.Files) > 0 && parser.MustParseHeredoc(i.CmdLine[0]) != nil {
		text += fmt.Sprintf(" (%s)", summary(i.Files[0].Data))
	}
	if i.PrependShell {
		argv = cfg.withShell(argv)
	}
	mounts, err := m.mounts(d, c, i)
	if err != nil {
		return err
	}
	env, err := m.environ(d)
	if err != nil {
		return err
	}
	op := &Run{
		Args: argv, Env: env, Cwd: path.Clean(d.cwd()), User: cfg.User,
		Files: files, Network: m.network(i), Mounts: mounts,
	}
	if err := m.step(d, c, op, m.shownAs(m.commandLex(), text, masked(mounts, d.env))); err != nil {
		return err
	}
	history, err := m.runText(d, argv)
	if err != nil {
		return err
	}
	return m.record(d, history, true)
}

// network is the network of a RUN: its own, else that of the build.
func (m *maker) network(i *instructions.RunCommand) string {
	own := instructions.GetNetwork(i)
	if own == instructions.NetworkDefault && m.opt.Network != "" {
		return m.opt.Network
	}
	return own
}

// networkHost is the one entitlement that can be granted.
const networkHost = "network.host"

// granted refuses what asks for a privilege that was not granted.
func (m *maker) granted(i *instructions.RunCommand) error {
	if instructions.GetSecurity(i) == instructions.SecurityInsecure {
		return &dockerfile.Error{
			Class: request.ClassEntitlement,
			Msg:   "security.insecure is not allowed",
			Hint:  "a step never gets more privileges here: leave --security=insecure out",
		}
	}
	if instructions.GetNetwork(i) == instructions.NetworkHost && !slices.Contains(m.opt.Allow, networkHost) {
		return &dockerfile.Error{
			Class: request.ClassEntitlement,
			Msg:   networkHost + " is not allowed",
			Hint:  "grant it with --allow " + networkHost + ", or leave --network=host out",
		}
	}
	if len(instructions.GetDevices(i)) > 0 {
		return dockerfile.Errorf(request.ClassUnsupported, nil, "RUN --device is not supported")
	}
	return nil
}

// commandLine is what a RUN executes, without the shell, and the files that it
// needs. A single here-document is a script: handed to the shell, or, if it
// starts with #!, a file that is run. Here-documents beside a command are the
// shell's: it gets them as they were.
func commandLine(i *instructions.RunCommand) ([]string, []File, error) {
	if len(i.Files) == 0 {
		return i.CmdLine, nil, nil
	}
	if len(i.CmdLine) != 1 || !i.PrependShell {
		return nil, nil, fmt.Errorf("parsing produced an invalid run command: %v", i.CmdLine)
	}
	if parser.MustParseHeredoc(i.CmdLine[0]) == nil {
		var b strings.Builder
		b.WriteString(i.CmdLine[0])
		for _, f := range i.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, nil, nil
	}
	data := i.Files[0].Data
	if i.Files[0].Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if !strings.HasPrefix(data, "#!") {
		return []string{data}, nil, nil
	}
	f := File{Name: i.Files[0].Name, Data: []byte(data), Mode: 0o755}
	if err := checkFileName(f.Name); err != nil {
		return nil, nil, err
	}
	return []string{path.Join(PipesDir, f.Name)}, []File{f}, nil
}

// checkFileName refuses the name of a here-document that is no file name.
func checkFileName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return fmt.Errorf("%q cannot be the name of a here-document: it is not a file name", name)
	}
	return nil
}

// environ is the environment of a RUN: the stage's, then proxies.
func (m *maker) environ(d *draft) ([]string, error) {
	if d.env.list == nil {
		if err := m.budget.take(d.env.size()); err != nil {
			return nil, err
		}
	}
	env := d.env.Environ()
	if len(m.proxies) == 0 {
		return slices.Clip(env), nil
	}
	if err := m.budget.take(16 * len(env)); err != nil {
		return nil, err
	}
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		return slices.ContainsFunc(m.proxies, func(p string) bool { return envName(p) == envName(e) })
	})
	return append(env, m.proxies...), nil
}

// masked is an environment for showing a command: variables that hold secrets
// show stars.
func masked(mounts []Mount, env *scope) *scope {
	for _, mount := range mounts {
		if mount.Type == "secret" && mount.Env != "" {
			env = env.clone()
			env.Set(mount.Env, "****")
		}
	}
	return env
}

// summary is the first line of a here-document.
func summary(doc string) string {
	line, _, more := strings.Cut(strings.TrimSpace(doc), "\n")
	line = strings.TrimSuffix(line, "\r")
	if more {
		line += "..."
	}
	return line
}
