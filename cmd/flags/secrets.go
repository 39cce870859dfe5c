package flags

import (
	"encoding/csv"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/secrets"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// lending is what RUN steps are lent: as given, and, after Request, where it is.
type lending struct {
	secrets, agents []string
	lent            secrets.Lent
}

// maxID bounds the id of a secret or an agent, in bytes.
const maxID = 255

func (b *Build) registerSecrets() {
	fs, l := b.set, &b.lending
	fs.Var(listValue{&l.secrets}, "secret", "a secret for RUN --mount=type=secret: `id=name`,src=file or id=name,env=variable; with neither, the variable of that name, else the file; may be repeated")
	fs.Var(listValue{&l.agents}, "ssh", "an SSH agent for RUN --mount=type=ssh and git repositories: an id, such as default, for the one at $SSH_AUTH_SOCK, or `id=path` of a socket, or of private keys with commas between them; may be repeated")
	group(fs, groupRun, "secret", "ssh")
}

// Lend opens the secrets and agents of the command line, after Request. sink is
// told about agents. Errors are of type *Error.
func (b *Build) Lend(from From, sink request.Sink) (*secrets.Store, error) {
	store, err := secrets.Open(b.lending.lent, from.Env, sink)
	if err != nil {
		return nil, inputf(tildeHint(err.Error()), "%s", byFlag(err.Error()))
	}
	return store, nil
}

// byFlag puts the flag in place of what it lends.
func byFlag(message string) string {
	if rest, ok := strings.CutPrefix(message, "secret "); ok {
		return "--secret: " + rest
	}
	if rest, ok := strings.CutPrefix(message, "SSH agent "); ok {
		return "--ssh: " + rest
	}
	return message
}

// tildeHint helps where --ssh default=~/.ssh/key was not expanded by the shell.
func tildeHint(message string) string {
	if strings.Contains(message, "/~/") {
		return "the shell does not expand ~ here: write $HOME"
	}
	return ""
}

// secretsAndAgents takes --secret and --ssh. Of both the request has the ids.
func (b *Build) secretsAndAgents(r *request.Build, from From) error {
	for _, given := range b.lending.secrets {
		s, err := secret(given, from)
		if err != nil {
			return err
		}
		if !slices.Contains(r.Secrets, s.ID) {
			r.Secrets = append(r.Secrets, s.ID)
		}
		b.lending.lent.Secrets = append(b.lending.lent.Secrets, s)
	}
	for _, given := range b.lending.agents {
		a, err := agent(given, from)
		if err != nil {
			return err
		}
		if slices.Contains(r.Agents, a.ID) {
			return usagef("", "--ssh: %s: two agents of one id", a.ID)
		}
		r.Agents = append(r.Agents, a.ID)
		b.lending.lent.Agents = append(b.lending.lent.Agents, a)
	}
	return nil
}

// secret reads one --secret, a line of comma-separated key=value with CSV's
// quoting, as docker has it.
func secret(given string, from From) (secrets.Secret, error) {
	wrong := func(format string, args ...any) (secrets.Secret, error) {
		return secrets.Secret{}, usagef("for example --secret id=token,src=token.txt or --secret id=token,env=TOKEN", "--secret: "+format, args...)
	}
	fields, err := csv.NewReader(strings.NewReader(given)).Read()
	if err != nil || strings.ContainsAny(given, "\r\n") {
		return wrong("%q: want id=ID[,src=FILE|,env=VAR]", given)
	}
	var s secrets.Secret
	kind := ""
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return wrong("invalid field '%s' must be a key=value pair", field)
		}
		switch strings.ToLower(key) {
		case "id":
			s.ID = value
		case "src", "source":
			s.File = value
		case "env":
			s.Env = value
		case "type":
			kind = value
		default:
			return wrong("unexpected key '%s' in '%s'", key, field)
		}
	}
	if s.ID == "" {
		return wrong("%q: an id is missing: want id=ID[,src=FILE|,env=VAR]", given)
	}
	if !validID(s.ID) {
		return wrong("id %q: want at most %d printable bytes", s.ID, maxID)
	}
	if kind != "" && kind != "file" && kind != "env" {
		return wrong("unsupported secret type %q: want file or env", kind)
	}
	if s, ok := located(s, kind, from); ok {
		return s, nil
	}
	return wrong("%s: a file and a variable: want one of them", s.ID)
}

// located settles where a secret is. With type=env, src is the variable's name.
// Of neither, the id names a variable, if it is set, else a file.
func located(s secrets.Secret, kind string, from From) (_ secrets.Secret, ok bool) {
	if kind == "env" && s.Env == "" {
		s.Env, s.File = s.File, ""
	}
	if s.Env != "" && s.File != "" || kind == "file" && s.Env != "" {
		return s, false
	}
	if s.Env == "" && s.File == "" {
		_, set := from.Env(s.ID)
		if kind == "env" || kind == "" && set {
			s.Env = s.ID
		} else {
			s.File = s.ID
		}
	}
	if s.File != "" {
		s.File = absolute(from.Dir, s.File)
	}
	return s, true
}

// agent reads one --ssh.
func agent(given string, from From) (secrets.Agent, error) {
	id, list, _ := strings.Cut(given, "=")
	a := secrets.Agent{ID: id}
	if a.ID == "" {
		a.ID = "default"
	}
	if !validID(a.ID) {
		return a, usagef("", "--ssh: id %q: want at most %d printable bytes", a.ID, maxID)
	}
	for path := range strings.SplitSeq(list, ",") {
		if raw, ok := strings.CutPrefix(path, "raw="); ok {
			if yes, err := strconv.ParseBool(raw); err != nil || yes {
				return a, usagef("leave it out: steps may list keys and have data signed", "--ssh: raw=%s: not supported: an agent is never lent unfiltered", raw)
			}
			continue
		}
		if path != "" {
			a.Paths = append(a.Paths, absolute(from.Dir, path))
		} else if list != "" {
			return a, usagef("", "--ssh: %q: an empty path", given)
		}
	}
	if len(a.Paths) > 0 {
		return a, nil
	}
	socket, _ := from.Env("SSH_AUTH_SOCK")
	if socket == "" {
		return a, inputf("start an agent, or name a key: --ssh "+a.ID+"=FILE", "--ssh: %s: no SSH agent: SSH_AUTH_SOCK is not set", a.ID)
	}
	a.Paths = []string{absolute(from.Dir, socket)}
	return a, nil
}

// validID tells whether s can be the id of a secret or an agent.
func validID(s string) bool {
	return len(s) <= maxID && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// lentFiles keeps a checkout from choosing what is lent: a file named by its
// place in the context or in the current directory must not be a symbolic link
// that leads out of it.
func (b *Build) lentFiles(r *request.Build, from From) error {
	files := map[string]string{}
	for _, s := range b.lending.lent.Secrets {
		if s.File != "" {
			files[s.File] = "--secret: " + s.ID
		}
	}
	for _, a := range b.lending.lent.Agents {
		for _, path := range a.Paths {
			files[path] = "--ssh: " + a.ID
		}
	}
	for path, flag := range files {
		if r.Context != "" && within(path, string(r.Context)) {
			if real, err := filepath.EvalSymlinks(path); err == nil && !below(real, string(r.Context)) {
				return inputf("name the file itself", "%s: %s: a symbolic link that leads out of the context", flag, path)
			}
			continue
		}
		// The environment's socket is the user's, and may well be a link.
		if socket, _ := from.Env("SSH_AUTH_SOCK"); path == socket {
			continue
		}
		if err := staysBelow(path, from.Dir); err != nil {
			return inputf("name the file itself", "%s: %s", flag, err)
		}
	}
	return nil
}

// within tells whether one of the directories that path goes through is dir, a
// real path, or lies in it.
func within(path, dir string) bool {
	for at := filepath.Dir(path); ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil && below(real, dir) {
			return true
		}
		if at == filepath.Dir(at) {
			return false
		}
	}
}
