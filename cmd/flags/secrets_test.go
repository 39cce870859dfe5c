package flags

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/secrets"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// lend parses flags that are given in dir.
func lend(dir string, env map[string]string, args ...string) (request.Build, secrets.Lent, error) {
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	b := Register(fs)
	if err := fs.Parse(append(args, "--no-push")); err != nil {
		return request.Build{}, secrets.Lent{}, ParseError(fs, err)
	}
	r, _, err := b.Request(From{
		Dir: dir, Context: ".",
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	})
	return r, b.lending.lent, err
}

func TestSecretFlag(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	env := map[string]string{"SET": "value", "EMPTY": ""}
	file := func(id, name string) secrets.Secret { return secrets.Secret{ID: id, File: filepath.Join(dir, name)} }
	for given, want := range map[string]secrets.Secret{
		"id=x,src=f":              file("x", "f"),
		"id=x,source=f":           file("x", "f"),
		"ID=x,SRC=f":              file("x", "f"),
		"src=d/../f,id=x":         file("x", "f"),
		"id=x,src=/abs":           {ID: "x", File: "/abs"},
		"id=x,src=f,type=file":    file("x", "f"),
		"id=x,env=V":              {ID: "x", Env: "V"},
		"id=x,env=V,type=env":     {ID: "x", Env: "V"},
		"id=x,src=V,type=env":     {ID: "x", Env: "V"},
		"id=SET":                  {ID: "SET", Env: "SET"},
		"id=EMPTY":                {ID: "EMPTY", Env: "EMPTY"},
		"id=SET,type=env":         {ID: "SET", Env: "SET"},
		"id=SET,type=file":        file("SET", "SET"),
		"id=x":                    file("x", "x"),
		"id=x,type=env":           {ID: "x", Env: "x"},
		`"id=a,b","src=f,g"`:      file("a,b", "f,g"),
		`id=x,"src=a ""quoted"""`: file("x", `a "quoted"`),
		"id=x,src=a=b":            file("x", "a=b"),
		"id=HTTP_AUTH_HEADER_example.com:8080,env=V": {ID: "HTTP_AUTH_HEADER_example.com:8080", Env: "V"},
		"id=x,src=": file("x", "x"),
	} {
		r, lent, err := lend(dir, env, "--secret", given)
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		if d := cmp.Diff([]secrets.Secret{want}, lent.Secrets); d != "" || !slices.Equal(r.Secrets, []string{want.ID}) {
			t.Errorf("%s: %s, the request has %q", given, d, r.Secrets)
		}
	}
	r, lent, err := lend(dir, nil, "--secret", "id=x,src=a", "--secret=id=y,src=b", "--secret", "id=x,src=c")
	if err != nil || !slices.Equal(r.Secrets, []string{"x", "y"}) || len(lent.Secrets) != 3 || lent.Secrets[2] != file("x", "c") {
		t.Errorf("%q, %v, %v", r.Secrets, lent, err)
	}
}

func TestSSHFlag(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	env := map[string]string{"SSH_AUTH_SOCK": "/run/agent"}
	in := func(names ...string) (list []string) {
		for _, n := range names {
			list = append(list, filepath.Join(dir, n))
		}
		return list
	}
	for given, want := range map[string]secrets.Agent{
		"default":          {ID: "default", Paths: []string{"/run/agent"}},
		"":                 {ID: "default", Paths: []string{"/run/agent"}},
		"x":                {ID: "x", Paths: []string{"/run/agent"}},
		"x=":               {ID: "x", Paths: []string{"/run/agent"}},
		"=k":               {ID: "default", Paths: in("k")},
		"x=sock":           {ID: "x", Paths: in("sock")},
		"x=/abs,k":         {ID: "x", Paths: append([]string{"/abs"}, in("k")...)},
		"x=a=b":            {ID: "x", Paths: in("a=b")},
		"x=k,raw=false":    {ID: "x", Paths: in("k")},
		"x=raw=0":          {ID: "x", Paths: []string{"/run/agent"}},
		"github.com=k1,k2": {ID: "github.com", Paths: in("k1", "k2")},
	} {
		r, lent, err := lend(dir, env, "--ssh", given)
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		if d := cmp.Diff([]secrets.Agent{want}, lent.Agents); d != "" || !slices.Equal(r.Agents, []string{want.ID}) {
			t.Errorf("%s: %s, the request has %q", given, d, r.Agents)
		}
	}
}

func TestWrongSecrets(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch", "out": "->/etc/passwd", "in": "->Dockerfile", "d": "->/etc", "Dir/f": ""})
	for _, tt := range []struct {
		flag, value, want string
		input             bool
	}{
		{"secret", "", `--secret: "": want id=ID[,src=FILE|,env=VAR]`, false},
		{"secret", "x", "--secret: invalid field 'x' must be a key=value pair", false},
		{"secret", "src=f", `--secret: "src=f": an id is missing: want id=ID[,src=FILE|,env=VAR]`, false},
		{"secret", "id=", `--secret: "id=": an id is missing: want id=ID[,src=FILE|,env=VAR]`, false},
		{"secret", "id=x,mode=0400", "--secret: unexpected key 'mode' in 'mode=0400'", false},
		{"secret", "id=x,type=vault", `--secret: unsupported secret type "vault": want file or env`, false},
		{"secret", "id=x,src=f,env=V", "--secret: x: a file and a variable: want one of them", false},
		{"secret", "id=x,env=V,type=file", "--secret: x: a file and a variable: want one of them", false},
		{"secret", `id=x,"src=f`, `--secret: "id=x,\"src=f": want id=ID[,src=FILE|,env=VAR]`, false},
		{"secret", "id=x,src=f\nid=y", `--secret: "id=x,src=f\nid=y": want id=ID[,src=FILE|,env=VAR]`, false},
		{"secret", "id=a\x01b", `--secret: id "a\x01b": want at most 255 printable bytes`, false},
		{"secret", "id=a\xff", `--secret: id "a\xff": want at most 255 printable bytes`, false},
		{"secret", "id=" + strings.Repeat("x", 256), "want at most 255 printable bytes", false},
		{"secret", "id=x,src=out", "--secret: x: " + dir + "/out: a symbolic link that leads out of the context", true},
		{"secret", "id=x,src=d/passwd", "--secret: x: " + dir + "/d/passwd: a symbolic link that leads out of the context", true},
		{"ssh", "default=out", "--ssh: default: " + dir + "/out: a symbolic link that leads out of the context", true},
		{"ssh", "default=k,raw=true", "--ssh: raw=true: not supported: an agent is never lent unfiltered", false},
		{"ssh", "default=k,raw=maybe", "--ssh: raw=maybe: not supported: an agent is never lent unfiltered", false},
		{"ssh", "default=k,,l", `--ssh: "default=k,,l": an empty path`, false},
		{"ssh", "a\x7f", `--ssh: id "a\x7f": want at most 255 printable bytes`, false},
		{"ssh", "default", "--ssh: default: no SSH agent: SSH_AUTH_SOCK is not set", true},
	} {
		_, _, err := lend(dir, nil, "--"+tt.flag, tt.value)
		var e *Error
		if !errors.As(err, &e) || !strings.HasSuffix(e.Msg, tt.want) || e.Input != tt.input {
			t.Errorf("--%s %q: %v (%+v), want %q", tt.flag, tt.value, err, e, tt.want)
		}
	}
	if _, _, err := lend(dir, nil, "--ssh", "x=k", "--ssh", "x=l"); err == nil || err.Error() != "--ssh: x: two agents of one id" {
		t.Errorf("%v", err)
	}
	// What is in the context, or is named by a place outside of it.
	for _, value := range []string{"id=x,src=in", "id=x,src=Dir/f", "id=x,src=/etc/passwd", "id=x,src=missing"} {
		if _, _, err := lend(dir, nil, "--secret", value); err != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
	// The same through another name of the context.
	other := tree(t, map[string]string{"ctx": "->" + dir})
	if _, _, err := lend(other, nil, "--secret", "id=x,src=ctx/out", "--context", "ctx"); err == nil {
		t.Error("a link out of the context was taken through a link to it")
	}
}

// TestRequestHasIDsOnly: where a secret is does not cross to the executor.
func TestRequestHasIDsOnly(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	r, _, err := lend(dir, map[string]string{"CANARY": "canary"}, "--secret", "id=x,src=canary", "--secret", "id=y,env=CANARY", "--ssh", "default=canary")
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.ToLower(cmp.Diff(request.Build{}, r)); strings.Contains(text, "canary") || !strings.Contains(text, `secrets`) {
		t.Error(text)
	}
}

func TestLendErrors(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	b := Register(fs)
	if err := fs.Parse([]string{"--no-push", "--ssh", "default=~/.ssh/id"}); err != nil {
		t.Fatal(err)
	}
	from := From{Dir: dir, Context: ".", Env: func(string) (string, bool) { return "", false }}
	if _, _, err := b.Request(from); err != nil {
		t.Fatal(err)
	}
	_, err := b.Lend(from, nil)
	var e *Error
	if !errors.As(err, &e) || !e.Input || !strings.Contains(e.Hint, "$HOME") || e.Msg != "--ssh: default: "+dir+"/~/.ssh/id: no such file or directory" {
		t.Errorf("%v (%+v)", err, e)
	}
	if b, err = lentNowhere(from); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lend(from, nil); !errors.As(err, &e) || !e.Input || e.Msg != "--secret: x: /nope: no such file or directory" {
		t.Errorf("%v (%+v)", err, e)
	}
}

// lentNowhere lends a secret that is not there.
func lentNowhere(from From) (*Build, error) {
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	b := Register(fs)
	if err := fs.Parse([]string{"--no-push", "--secret", "id=x,src=/nope"}); err != nil {
		return nil, err
	}
	_, _, err := b.Request(from)
	return b, err
}

// TestLentFilesOfACheckout: also where the context is but a part of it, no link
// of a checkout chooses what is lent.
func TestLentFilesOfACheckout(t *testing.T) {
	dir := tree(t, map[string]string{
		"co/app/Dockerfile": "FROM scratch", "co/out": "->../key", "co/d": "->..", "co/in": "->app/Dockerfile",
		"co/sock": "->../sock", "key": "k", "sock": "",
	})
	co := filepath.Join(dir, "co")
	env := map[string]string{"SSH_AUTH_SOCK": filepath.Join(co, "sock")}
	for _, tt := range []struct {
		flag, value string
		refused     bool
	}{
		{"secret", "id=x,src=out", true},
		{"secret", "id=x,src=d/key", true},
		{"secret", "id=x,src=in", false},
		{"secret", "id=x,src=../key", false},
		{"ssh", "default=out", true},
		{"ssh", "default", false},
	} {
		_, _, err := lend(co, env, "--context", "app", "--"+tt.flag, tt.value)
		if refused := err != nil && strings.Contains(err.Error(), "a symbolic link that leads out of "+co); refused != tt.refused || !refused && err != nil {
			t.Errorf("--%s %s: %v", tt.flag, tt.value, err)
		}
	}
}
