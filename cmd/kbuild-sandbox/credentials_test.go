package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func auth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// setup makes credentials from a config.json and helper scripts that lie in
// PATH; told collects what is told.
func setup(t *testing.T, config string, helpers map[string]string, env map[string]string, destinations ...string) (*credentials, *strings.Builder) {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range helpers {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	told := &strings.Builder{}
	c, err := newCredentials(func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		return map[string]string{"DOCKER_CONFIG": dir}[name], name == "DOCKER_CONFIG"
	}, destinations, func(text string) {
		told.WriteString(strings.ReplaceAll(text, dir, "DIR") + "\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, told
}

func TestCredentialsFromFile(t *testing.T) {
	config := `{"auths": {
		"https://index.docker.io/v1/": {"auth": "` + auth("hub", "h:p") + `"},
		"https://reg.example/v2/": {"username": "u", "password": "p"},
		"reg.example:5000": {"identitytoken": "id"},
		"http://Token.Example/": {"registrytoken": "tok"},
		"quay.example/team": {"username": "team", "password": "t"},
		"quay.example/team/app": {"username": "app", "password": "a"},
		"quay.example": {"username": "all", "password": "x"},
		"only.example/team": {"username": "team", "password": "t"},
		"localhost:5001": {"auth": "` + auth("local", "") + `"},
		"nul.example": {"auth": "` + base64.RawStdEncoding.EncodeToString([]byte("a:b\x00")) + `"},
		"empty.example": {},
		"bad.example": {"auth": "!!"},
		"nocolon.example": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("secret-without-colon")) + `"}
	}, "HttpHeaders": {"x": "y"}}`
	c, _ := setup(t, config, nil, nil)
	for _, tt := range []struct {
		host, repository string
		want             request.Answer
	}{
		{"index.docker.io", "library/debian", request.Answer{Username: "hub", Password: "h:p"}},
		{"docker.io", "library/debian", request.Answer{Username: "hub", Password: "h:p"}},
		{"registry-1.docker.io", "", request.Answer{Username: "hub", Password: "h:p"}},
		{"reg.example", "a/b", request.Answer{Username: "u", Password: "p"}},
		{"REG.example", "a/b", request.Answer{Username: "u", Password: "p"}},
		{"reg.example:5000", "a", request.Answer{IdentityToken: "id"}},
		{"token.example", "a", request.Answer{RegistryToken: "tok"}},
		{"quay.example", "team/app", request.Answer{Username: "app", Password: "a"}},
		{"quay.example", "team/app/sub", request.Answer{Username: "app", Password: "a"}},
		{"quay.example", "team/apple", request.Answer{Username: "team", Password: "t"}},
		{"quay.example", "teams/app", request.Answer{Username: "all", Password: "x"}},
		{"quay.example", "", request.Answer{Username: "all", Password: "x"}},
		{"only.example", "team/x", request.Answer{Username: "team", Password: "t"}},
		{"only.example", "other", request.Answer{}},
		{"localhost:5001", "a", request.Answer{Username: "local"}},
		{"nul.example", "a", request.Answer{Username: "a", Password: "b"}},
		{"empty.example", "a", request.Answer{}},
		// Never for a neighbour, a parent, a child or a look-alike.
		{"example", "a", request.Answer{}},
		{"sub.reg.example", "a", request.Answer{}},
		{"reg.example:443", "a", request.Answer{}},
		{"reg.example.evil.example", "a", request.Answer{}},
		{"evilreg.example", "a", request.Answer{}},
		{"bad.example", "a", request.Answer{Error: "auths bad.example in FILE: auth is not base64 of username:password"}},
		{"nocolon.example", "a", request.Answer{Error: "auths nocolon.example in FILE: auth is not base64 of username:password"}},
		{"reg example", "a", request.Answer{Error: `"reg example" is not a registry`}},
		{"reg.example\n", "a", request.Answer{Error: `"reg.example\n" is not a registry`}},
		{"", "a", request.Answer{Error: `"" is not a registry`}},
	} {
		got := c.answer(context.Background(), request.Ask{ID: 7, Host: tt.host, Repository: tt.repository, Scope: request.Pull})
		if got.ID != 7 {
			t.Errorf("%s: the answer has the id %d", tt.host, got.ID)
		}
		got.ID = 0
		got.Error = strings.ReplaceAll(got.Error, c.configs[0].source, "FILE")
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %s: -want +got:\n%s", tt.host, tt.repository, diff)
		}
	}
}

func TestCredentialHelpers(t *testing.T) {
	config := `{
		"auths": {"https://index.docker.io/v1/": {}, "fallback.example": {"username": "file", "password": "f"}},
		"credsStore": "all",
		"credHelpers": {"ecr.example": "ecr", "https://docker.io": "hub", "missing.example": "none", "bad.example": "../../bin/sh"}
	}`
	log := filepath.Join(t.TempDir(), "log")
	helpers := map[string]string{
		// Each writes down what it was asked for.
		"ecr": `read server; echo "ecr $1 $server" >>` + log + `; echo '{"ServerURL":"x","Username":"AWS","Secret":"s3cret"}'`,
		"hub": `read server; echo "hub $1 $server" >>` + log + `; echo '{"Username":"<token>","Secret":"refresh"}'`,
		"all": `read server; echo "all $1 $server" >>` + log + `
			case $server in
			slow.example) sleep 60 & echo $! >` + log + `.pid; wait ;;
			junk.example) echo 'no JSON s3cret' ;;
			huge.example) head -c 3000000 /dev/zero ;;
			fails.example) printf 'it \033[31mbroke\n'; exit 3 ;;
			empty.example) echo '{}' ;;
			*) echo 'credentials not found in native keychain'; exit 1 ;;
			esac`,
	}
	c, told := setup(t, config, helpers, nil)
	ctx := context.Background()
	ask := func(host string) request.Answer {
		a := c.answer(ctx, request.Ask{Host: host, Scope: request.Pull})
		a.Error = strings.ReplaceAll(a.Error, c.configs[0].source, "FILE")
		return a
	}
	for _, tt := range []struct {
		host string
		want request.Answer
	}{
		{"ecr.example", request.Answer{Username: "AWS", Password: "s3cret"}},
		{"ecr.example", request.Answer{Username: "AWS", Password: "s3cret"}},
		{"index.docker.io", request.Answer{IdentityToken: "refresh"}},
		{"unknown.example", request.Answer{}},
		{"fallback.example", request.Answer{Username: "file", Password: "f"}},
		{"empty.example", request.Answer{}},
		{"missing.example", request.Answer{Error: "docker-credential-none (credHelpers in FILE): not found in PATH"}},
		{"bad.example", request.Answer{Error: `docker-credential-../../bin/sh (credHelpers in FILE): "../../bin/sh" is not the name of a helper`}},
		{"junk.example", request.Answer{Error: "docker-credential-all (credsStore in FILE): answered no JSON"}},
		{"huge.example", request.Answer{Error: "docker-credential-all (credsStore in FILE): answered more than 1048576 bytes"}},
		{"fails.example", request.Answer{Error: "docker-credential-all (credsStore in FILE): exit status 3: it broke"}},
	} {
		if diff := cmp.Diff(tt.want, ask(tt.host)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.host, diff)
		}
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := "ecr get ecr.example\nhub get https://index.docker.io/v1/\nall get unknown.example\nall get fallback.example\n" +
		"all get empty.example\nall get junk.example\nall get huge.example\nall get fails.example\n"
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error("what the helpers were asked: -want +got:\n" + diff)
	}
	for _, want := range []string{"credential for ecr.example (pull): docker-credential-ecr (credHelpers in ", "unknown.example (pull): none, anonymous", "auths fallback.example in "} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("nothing tells %q in\n%s", want, told)
		}
	}
	if strings.Contains(told.String(), "s3cret") || strings.Contains(told.String(), "refresh") {
		t.Errorf("a secret was told:\n%s", told)
	}

	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if a := c.answer(short, request.Ask{Host: "slow.example"}); !strings.Contains(a.Error, "no answer: context deadline exceeded") {
		t.Errorf("a slow helper: %+v", a)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("a slow helper held everything up for %s", d)
	}
	pid, err := os.ReadFile(log + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	if args, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline"); len(args) > 0 {
		t.Errorf("what a slow helper started still runs: %q", args)
	}
}

func TestCredentialsEnvironment(t *testing.T) {
	inline := `{"auths": {"reg.example": {"username": "inline", "password": "i"}}}`
	config := `{"auths": {"reg.example": {"username": "file", "password": "f"}, "other.example": {"username": "file", "password": "f"}}}`
	c, _ := setup(t, config, nil, map[string]string{"DOCKER_AUTH_CONFIG": inline})
	for host, want := range map[string]string{"reg.example": "inline", "other.example": "file", "third.example": ""} {
		if got := c.answer(context.Background(), request.Ask{Host: host}); got.Username != want || got.Error != "" {
			t.Errorf("%s: %+v, want user %q", host, got, want)
		}
	}
}

func TestCredentialsPush(t *testing.T) {
	config := `{"auths": {
		"reg.example:5000": {"username": "u", "password": "p"}, "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
		"private.example": {"username": "u", "password": "p"}}}`
	c, _ := setup(t, config, nil, nil, "reg.example:5000/a/b:1", "me/app")
	for host, want := range map[string]string{"reg.example:5000": "u", "index.docker.io": "hub"} {
		if got := c.answer(context.Background(), request.Ask{Host: host, Scope: request.Push}); got.Username != want {
			t.Errorf("%s: %+v", host, got)
		}
	}
	for _, ask := range []request.Ask{
		{Host: "private.example", Scope: request.Push},
		{Host: "reg.example", Scope: request.Push},
		{Host: "reg.example:5000", Scope: "delete"},
	} {
		if got := c.answer(context.Background(), ask); got.Error == "" || got.Username != "" {
			t.Errorf("%+v: %+v", ask, got)
		}
	}
	if got := c.answer(context.Background(), request.Ask{Host: "private.example", Scope: request.Pull}); got.Username != "u" {
		t.Errorf("pull: %+v", got)
	}
}

func TestCredentialsBounded(t *testing.T) {
	c, _ := setup(t, `{}`, nil, nil)
	for range maxAsks {
		if a := c.answer(context.Background(), request.Ask{Host: "reg.example"}); a.Error != "" {
			t.Fatal(a.Error)
		}
	}
	if a := c.answer(context.Background(), request.Ask{Host: "reg.example"}); a.Error == "" {
		t.Error("no end of questions")
	}
}

func TestCredentialsConfigFaults(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	tell := func(string) {}
	if c, err := newCredentials(none, nil, tell); err != nil || len(c.configs) != 0 {
		t.Errorf("without HOME: %v, %v", c, err)
	}
	only := func(variable, value string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			if name != variable {
				return "", false
			}
			return value, true
		}
	}
	for _, value := range []string{`{"auths": {"a": {"auth": "s3cret`, `[1, "s3cret"]`, `{"auths": "s3cret"}`} {
		_, err := newCredentials(only("DOCKER_AUTH_CONFIG", value), nil, tell)
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "DOCKER_AUTH_CONFIG") {
			t.Errorf("%s: error %v", value, err)
		}
	}
	dir := t.TempDir()
	home := only("HOME", dir)
	if _, err := newCredentials(home, nil, tell); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ".docker/config.json")
	for content, bad := range map[string]bool{"": false, "\n": false, `{"auths": null}`: false, `{`: true, strings.Repeat(" ", maxConfig+1): true} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newCredentials(home, nil, tell); (err != nil) != bad {
			t.Errorf("%.10q: error %v", content, err)
		}
	}
}

// TestAuthEntryNames holds that the names are docker's.
func TestAuthEntryNames(t *testing.T) {
	raw, err := json.Marshal(authEntry{})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"auth":"","username":"","password":"","identitytoken":"","registrytoken":""}`; string(raw) != want {
		t.Errorf("%s, want %s", raw, want)
	}
}

func TestDestinationHost(t *testing.T) {
	for ref, want := range map[string]string{
		"app": hubHost, "me/app:1": hubHost, "docker.io/me/app": hubHost, "localhost/app": "localhost",
		"localhost:5000/app": "localhost:5000", "reg.example/a/b:1": "reg.example", "REG.Example/a": "reg.example", "[::1]:5000/a": "[::1]:5000",
	} {
		if got := destinationHost(ref); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

// TestPushedTo: push has credentials for the destinations and for the places of results
// that it pushes to, and for no others.
func TestPushedTo(t *testing.T) {
	r := request.Build{
		Destinations: []string{"image.example/x:1"},
		CacheFrom:    []request.CachePlace{{Repository: "from.example/x"}},
		CacheTo: []request.CacheTarget{
			{CachePlace: request.CachePlace{Repository: "cache.example:5000/x"}}, {CachePlace: request.CachePlace{Reference: "ref.example/x:c"}},
			{CachePlace: request.CachePlace{Layout: "/l", Called: "layout.example/x"}},
		},
	}
	noPush := r
	noPush.NoPush = true
	for _, tt := range []struct {
		r    request.Build
		want string
	}{
		{r, "image.example cache.example:5000 ref.example"}, {noPush, "cache.example:5000 ref.example"},
	} {
		config := `{"auths":{"image.example":{"auth":"` + auth("u", "p") + `"}}}`
		c, _ := setup(t, config, nil, nil, pushedTo(tt.r)...)
		for _, host := range []string{"image.example", "cache.example:5000", "ref.example", "from.example", "layout.example", "cache.example"} {
			a := c.answer(t.Context(), request.Ask{Host: host, Repository: "x", Scope: request.Push})
			if given := a.Error == ""; given != slices.Contains(strings.Fields(tt.want), host) {
				t.Errorf("%s for a push: %q, want %s", host, a.Error, tt.want)
			}
		}
	}
}
