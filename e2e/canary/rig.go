package canary

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// Canaries are the credentials of one build, and what has to be found so that
// not finding the others means something.
type Canaries struct {
	Pull, Push       Canary // passwords
	Identity, Bearer Canary // of the token server, for a pull
	Secret           Canary // lent to a step
	Word             Canary // in the image and in the log
}

func newCanaries() Canaries {
	return Canaries{
		Pull: NewCanary("pull password", registrytest.User), Push: NewCanary("push password", registrytest.User),
		Identity: NewCanary("identity token", ""), Bearer: NewCanary("bearer token", ""),
		Secret: NewCanary("secret of a step", ""), Word: NewCanary("word of the image", ""),
	}
}

func (c Canaries) all() []Canary {
	return []Canary{c.Pull, c.Push, c.Identity, c.Bearer, c.Secret, c.Word}
}

// Rig is the world of one build: its registries, and its directory.
type Rig struct {
	Canaries
	Search *Search
	Dir    string   // of the build: context, home, tmp, out
	Stores []string // of the registries that are pushed to
	// Written are the files that the build has to write, below Dir.
	Written []string

	from, tokens, to *Front
	step             *Front // that the step asks, through the gateway
}

// newRig starts registries that want the canaries, with a base image in two of
// them. uid is the user who builds, n tells which build it is.
func newRig(t testing.TB, uid, n int) *Rig {
	t.Helper()
	c := newCanaries()
	r := &Rig{Canaries: c, Search: NewSearch(c.all()...)}
	from := registrytest.Start(t, registrytest.Options{Auth: true, Password: c.Pull.Value})
	open := registrytest.Start(t, registrytest.Options{})
	to := registrytest.Start(t, registrytest.Options{Auth: true, Password: c.Push.Value})
	r.Stores = []string{to.Dir}
	push(t, from.Addr, c.Pull.Value)
	push(t, open.Addr, "")
	r.from = StartFront(t, from.URL, nil)
	r.tokens = StartFront(t, open.URL, &Tokens{Identity: c.Identity, Bearer: c.Bearer})
	r.to = StartFront(t, to.URL, nil)
	r.step = StartFront(t, "", nil)
	r.lay(t, uid, n)
	return r
}

func push(t testing.TB, host, password string) {
	t.Helper()
	img, err := rig.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host+"/base:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	login := &authn.Basic{Username: registrytest.User, Password: password}
	if err := remote.Write(ref, img, remote.WithAuth(login), remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

const dockerfile = `FROM %s/base:1 AS one
RUN echo one > /one
FROM %s/base:1
COPY --from=one /one /one
COPY word /word
ARG STEP
RUN --mount=type=secret,id=canary --mount=type=secret,id=canary,env=CANARY --mount=type=cache,target=/cache \
    echo kept > /cache/kept && cat /word && x=$(cat /run/secrets/canary) && test "$x" = "$CANARY" && echo "secret: $x" && wget -O /dev/null http://$STEP/stands
RUN env && ls -a / && ! ls -R /run/secrets
`

// lay makes the build's directory.
func (r *Rig) lay(t testing.TB, uid, n int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "canary-") // the user may not go through the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r.Dir = dir
	config, err := json.Marshal(r.config(n))
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"home/.docker/config.json": string(config),
		"home/secret":              r.Secret.Value,
		"context/Dockerfile":       fmt.Sprintf(dockerfile, r.from.Host, r.tokens.Host),
		"context/word":             r.Word.Value + "\n",
		"bin/" + helper:            fmt.Sprintf("#!/bin/sh\necho '{\"Username\":\"%s\",\"Secret\":\"%s\"}'\n", registrytest.User, r.Push.Value),
		"tmp/.keep":                "",
		"out/.keep":                "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

const helper = "docker-credential-canary"

// config is docker's config.json: the password for the push is in it, or, at
// every second build, a helper's to tell.
func (r *Rig) config(n int) map[string]any {
	auths := map[string]map[string]string{
		r.from.Host:   {"auth": base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + r.Pull.Value))},
		r.tokens.Host: {"identitytoken": r.Identity.Value},
	}
	if n%2 == 1 {
		return map[string]any{"auths": auths, "credHelpers": map[string]string{r.to.Host: "canary"}}
	}
	auths[r.to.Host] = map[string]string{"username": registrytest.User, "password": r.Push.Value}
	return map[string]any{"auths": auths}
}

// args is the command line of the n-th build: everything that writes something
// is asked for.
func (r *Rig) args(n int) []string {
	mode, output := "plain", []string{"--attest", "type=provenance,mode=max"}
	if n%2 == 1 { // a tar file has no place for provenance
		mode, output = "json", []string{"--tar-path", r.path("out/image.tar")}
	}
	args := []string{
		"build", "--progress", mode, "--verbosity", "trace", "-t", r.to.Host + "/app:1", "--label", "a=b", "--annotation", "c=d",
		"--secret", "id=canary,src=" + r.path("home/secret"), "--cache-dir", r.path("out/cache"),
		"--build-arg", "STEP=step" + strings.TrimPrefix(r.step.Host, "127.0.0.1"), "--add-host", "step:host-gateway", "--allow-net", r.step.Host,
	}
	for _, front := range []*Front{r.from, r.to, r.tokens} {
		args = append(args, "--insecure-registry", front.Host)
	}
	for flag, name := range map[string]string{
		"--oci-layout-path": "layout", "--metadata-file": "metadata.json", "--digest-file": "digest", "--iidfile": "id",
		"--audit-log": "audit.jsonl", "--trace": "trace.json", "--provenance-file": "provenance.jsonl",
	} {
		r.Written = append(r.Written, "out/"+name)
		args = append(args, flag, r.path("out/"+name))
	}
	return append(append(args, output...), r.path("context"))
}

func (r *Rig) path(name string) string { return filepath.Join(r.Dir, name) }
