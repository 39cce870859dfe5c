package escape

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
)

// cacheRows are what caches, provenance and logs were used for; what uses up
// resources is in resourceRows.
func cacheRows() []Attack {
	rows := []Attack{
		{ID: 97, Source: "CVE-2024-24557", Title: "an entry of the layer cache that is right for another instruction, platform or argument: whatever changes, every step runs",
			Want: []Outcome{Inert}, Run: layerCache},
		{ID: 98, Source: "docker/github-builder-experimental #56", Title: "others write cache mounts that a release build reads: open directories, changed files, links, another's directory",
			Want: []Outcome{Rejected}, Run: cachePoisoning},
		{ID: 99, Source: "class", Title: "a secret in cache keys, layers, history and log",
			Want: []Outcome{Contained}, Run: secretTraces},
		{ID: 100, Source: "class", Title: "what another's cache has, asked by its key and read from names of files",
			Want: []Outcome{Contained}, Run: cacheSideChannel},
		{ID: 101, Source: "class", Title: "provenance made up: by a step, by labels, by an executor that reports another digest and other materials",
			Want: []Outcome{Rejected}, Run: forgedProvenance},
		{ID: 102, Source: "class", Title: "what a build takes from outside, over five ways, against what its provenance says",
			Want: []Outcome{Contained}, Run: undeclaredMaterials},
		{ID: 103, Source: "CVE-2024-52005", Title: "terminal sequences and CI commands in the output of steps, git, registries, file names and an executor that was taken over",
			Want: []Outcome{Contained}, Run: logInjection},
	}
	return append(inSection("2H", rows), resourceRows()...)
}

func layerCache(t *Target) Outcome {
	const dockerfile = "FROM $BUSYBOX\nARG A\nENV E=$E\nUSER 0\nRUN echo ran $(cat /proc/sys/kernel/random/uuid /proc/uptime | tr -d ' \\n') $A $E $NONCE\n"
	first := regexp.MustCompile(`\d\.\d{3} ran (\S+)`)
	seen := map[string]bool{}
	for _, change := range []Build{
		{Dockerfile: dockerfile},
		{Dockerfile: dockerfile},
		{Dockerfile: dockerfile, Args: []string{"--build-arg", "A=b"}},
		{Dockerfile: "FROM scratch AS x\nONBUILD RUN false\nHEALTHCHECK CMD false\n" + dockerfile},
	} {
		r := t.Build(change)
		r.Done(`\d ran \S+ .*$NONCE`)
		when := first.FindStringSubmatch(r.Output)
		if when == nil || seen[when[1]] {
			t.Errorf("a step did not run again: %q", when)
			continue
		}
		seen[when[1]] = true
	}
	return Inert
}

// cacheBuild uses a cache mount of one id.
func cacheBuild(cache string) Build {
	return Build{
		Dockerfile: "FROM $BUSYBOX\nRUN --mount=type=cache,id=release,target=/c echo was $(cat /c/who 2>/dev/null || echo nobody); echo $NONCE > /c/who\n",
		Args:       []string{"--cache-dir", cache},
	}
}

func cachePoisoning(t *Target) Outcome {
	dir := func(name string) string { return filepath.Join(t.Dir, "out", name) }
	mine := dir("mine")
	t.Build(cacheBuild(mine)).Done(`\d was nobody`)
	t.Build(cacheBuild(mine)).Done(`\d was $NONCE`)
	// A directory that others can write, or that is another's.
	must(t, os.Chmod(mine, 0o777))
	t.Build(cacheBuild(mine)).Rejected(`can be written by others`)
	must(t, os.Chmod(mine, 0o700))
	foreign := dir("foreign")
	must(t, os.CopyFS(foreign, os.DirFS(mine)))
	must(t, chownTree(foreign, t.User+4711))
	t.Build(cacheBuild(foreign)).Rejected(`belongs to user|permission denied`)
	must(t, os.RemoveAll(foreign))
	// What was kept, changed by whoever got at the files.
	layers, err := filepath.Glob(filepath.Join(mine, "mounts", "*", strings.Repeat("?", 64)))
	must(t, err)
	if len(layers) == 0 {
		t.Fatal("nothing was kept")
	}
	for _, l := range layers {
		b, err := os.ReadFile(l)
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(l, b, 0o600))
	}
	t.Build(cacheBuild(mine)).Done(`\d was nobody`, `starts anew`)
	// A link to another cache in the place of an entry.
	other := dir("other")
	t.Build(cacheBuild(other)).Done(`\d was nobody`)
	entries, err := filepath.Glob(filepath.Join(mine, "mounts", "*"))
	must(t, err)
	for _, e := range entries {
		must(t, os.RemoveAll(e))
		must(t, os.Symlink(filepath.Join(other, "mounts", filepath.Base(e)), e))
	}
	r := t.Build(cacheBuild(mine))
	r.Hides(`\d was $NONCE`)
	return Rejected
}

func chownTree(dir string, user int) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, user, user))
	})
}

// secretTraces lends the word of the canary files, which the oracles look for in
// everything that is written and shown.
func secretTraces(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S cat /run/secrets/s; echo $S $S; printf %s $S | base64; printf %s $S | od -An -tx1 | tr -d ' \n'; \
    echo; for i in 0 1 2 3; do printf %s "$S" | head -c 20; printf %s "$S" | tail -c +21; echo; done; echo "::set-output name=x::$S"; sha256sum < /run/secrets/s > /dev/null; echo $NONCE
RUN --mount=type=cache,id=c-$NONCE,target=/c --mount=type=secret,id=s wc -c < /run/secrets/s > /c/size
`,
		Args: []string{"--secret", "id=s,env=LENT", "--progress", "plain"}, Env: []string{"LENT=" + t.Word},
	})
	out := r.Done(`\d $NONCE`)
	// A hash of it is none either: who guesses could check.
	sum := sha256.Sum256([]byte(t.Word))
	for _, form := range []string{fmt.Sprintf("%x", sum), base64.StdEncoding.EncodeToString(sum[:])} {
		if found := filesWith(t, filepath.Join(t.Dir, "out"), form); len(found) > 0 || strings.Contains(r.Output, form) {
			t.Errorf("the secret's hash is in %q or in the log", found)
		}
	}
	r = t.Build(Build{Dockerfile: "FROM $BUSYBOX\nARG DB_PASSWORD\nENV API_TOKEN=x\nRUN true\n"})
	r.Done(`SecretsUsedInArgOrEnv`)
	return out
}

// filesWith are the files below dir whose name or content has text.
func filesWith(t *Target, dir, text string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(path, text) || strings.Contains(string(b), text) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

func cacheSideChannel(t *Target) Outcome {
	victim, spy := filepath.Join(t.Dir, "out", "victim"), filepath.Join(t.Dir, "out", "spy")
	t.Build(cacheBuild(victim)).Done(`\d was nobody`)
	t.Build(cacheBuild(victim)).Done(`\d was $NONCE`)
	r := t.Build(cacheBuild(spy))
	r.Done(`\d was nobody`)
	r = t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN --mount=type=cache,id=release,target=/c,uid=1 --mount=type=cache,id=releas,target=/d find /c /d -type f | wc -l | sed 's/^/entries: /'\n",
		Args: []string{"--cache-dir", victim}})
	r.Done(`entries: 0`)
	// Names of files tell nothing of ids, and nobody else may list them.
	info, err := os.Stat(victim)
	must(t, err)
	if info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may look into the cache: %v", info.Mode())
	}
	must(t, filepath.WalkDir(victim, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), "release") {
			t.Errorf("%s tells the id", path)
		}
		return err
	}))
	return Contained
}

// statement is what the tests read of provenance.
type statement struct {
	Subject []struct {
		Name   string
		Digest map[string]string
	}
	Predicate struct {
		BuildDefinition struct {
			ResolvedDependencies []dependency
			ExternalParameters   json.RawMessage
		}
		RunDetails struct {
			Builder  struct{ ID string }
			Metadata struct {
				Hermetic     bool            `json:"kbuild_hermetic"`
				Completeness map[string]bool `json:"kbuild_completeness"`
			}
		}
	}
}

type dependency struct {
	URI         string
	Digest      map[string]string
	Annotations map[string]any
}

// provenance builds with provenance into a file and reads it.
func (t *Target) provenance(script string, b Build) (*Result, statement) {
	t.Helper()
	file := filepath.Join(t.Dir, "out", fmt.Sprintf("provenance%d.json", t.builds))
	b.Args = append(b.Args, "--provenance-file", file)
	var r *Result
	if script == "" {
		r = t.Build(b)
	} else {
		r = t.BuildWith(script, b)
	}
	var s statement
	if raw, err := os.ReadFile(file); err == nil {
		decode(t, raw, &s)
	}
	return r, s
}

func forgedProvenance(t *Target) Outcome {
	const forged = "deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef"
	dockerfile := "FROM $BUSYBOX\nLABEL org.opencontainers.image.base.digest=sha256:" + forged + " vnd.docker.reference.type=attestation-manifest\n" +
		"RUN echo $NONCE; echo '{\"_type\":\"https://in-toto.io/Statement/v1\"}' | tee /provenance.json /out /attestation.json\n"
	// What a step and labels say is the image's own.
	r, s := t.provenance("", Build{Dockerfile: dockerfile})
	r.Done(`$NONCE`)
	digest := layoutDigest(t, r)
	if len(s.Subject) == 0 || "sha256:"+s.Subject[0].Digest["sha256"] != digest {
		t.Errorf("the subject is %v, the image %s", s.Subject, digest)
	}
	// Materials that build makes up are build's words, and fetch's stay.
	r, s = t.provenance(`build result {"materials":[{"kind":"image","uri":"registry.example.com/trusted:1","digest":"sha256:`+forged+`"}]}`, Build{Dockerfile: dockerfile})
	if r.Status == 0 {
		fetched := false
		for _, d := range s.Predicate.BuildDefinition.ResolvedDependencies {
			by := d.Annotations["kbuild_reportedBy"]
			fetched = fetched || by == "fetch" && strings.Contains(d.URI, "busybox")
			if d.Digest["sha256"] == forged && by != "build" {
				t.Errorf("made-up material %+v", d)
			}
		}
		if !fetched {
			t.Errorf("the base image is not in %+v", s.Predicate.BuildDefinition.ResolvedDependencies)
		}
	}
	// Digests of what nobody handed out.
	for _, result := range []string{
		`{"digest":"sha256:` + forged + `"}`, `{"config":"sha256:` + forged + `"}`,
		`{"images":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + forged + `","size":7,"platform":"linux/amd64"}]}`,
	} {
		r, _ := t.provenance("build result "+result, Build{Dockerfile: dockerfile, Push: true})
		r.Rejected(`broke the protocol`)
	}
	return Rejected
}

// layoutDigest is the digest of the image that a build wrote.
func layoutDigest(t *Target, r *Result) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.Layout, "index.json"))
	must(t, err)
	var index v1.IndexManifest
	decode(t, raw, &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d images", len(index.Manifests))
	}
	return index.Manifests[0].Digest.String()
}

func undeclaredMaterials(t *Target) Outcome {
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	from := registry.Image("from", v1.Config{}, hostile.Tar(t, hostile.Entry{Name: "f", Data: t.Nonce}))
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	commit := repo.Commit("main", repo.File("f", "x"))
	page := []byte("page " + t.Nonce)
	archive := hostile.Tar(t, hostile.Entry{Name: "g", Data: t.Nonce})
	t.Web.Handle("/102/page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	t.Web.Handle("/102/c.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) })
	dockerfile := "FROM $BUSYBOX\nCOPY --from=" + from + " /f /f\nADD http://$PUBLIC/102/page /page\nADD " + repo.URL + "#main /git\nCOPY --from=c g /g\n"
	b := Build{Dockerfile: dockerfile + "RUN echo $NONCE\n", Args: []string{"--insecure-registry", registry.Addr, "--build-context", "c=http://" + PublicIPv4 + "/102/c.tar"}}
	r, s := t.provenance("", b)
	r.Done(`$NONCE`)
	manifest := registry.ImageManifest("from", v1.Config{}, hostile.Tar(t, hostile.Entry{Name: "f", Data: t.Nonce}))
	for what, digest := range map[string]string{
		"COPY --from": fmt.Sprintf("%x", sha256.Sum256(manifest)), "ADD of a page": fmt.Sprintf("%x", sha256.Sum256(page)),
		"ADD of a repository": commit, "named context": fmt.Sprintf("%x", sha256.Sum256(archive)),
		"base": "pkg:docker/" + strings.TrimSuffix(t.Busybox, ":1") + "@1?platform=linux%2Famd64",
	} {
		found := false
		for _, d := range s.Predicate.BuildDefinition.ResolvedDependencies {
			found = found || d.URI == digest && len(d.Digest["sha256"]) == 64
			for _, v := range d.Digest {
				found = found || v == digest
			}
		}
		if !found {
			t.Errorf("%s, %s, is not in %+v", what, digest, s.Predicate.BuildDefinition.ResolvedDependencies)
		}
	}
	// What a step fetches by itself is not there, and the statement says so.
	b.Dockerfile = dockerfile + "RUN wget -qO - http://$PUBLIC/hello && echo $NONCE\n"
	r, s = t.provenance("", b)
	r.Done(`$NONCE`)
	if m := s.Predicate.RunDetails.Metadata; m.Hermetic || m.Completeness["resolvedDependencies"] {
		t.Errorf("a build with a download of its own is told as %+v", m)
	}
	_, s = t.provenance("", Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE\n", Context: "-", Stdin: strings.NewReader(t.Expand("FROM $BUSYBOX\nRUN echo $NONCE\n"))})
	if m := s.Predicate.RunDetails.Metadata; !m.Hermetic {
		t.Errorf("a build without a download is told as %+v", m)
	}
	return Contained
}

// injections are what a terminal or a CI system would carry out.
func injections() []string {
	return []string{
		"\x1b[2J\x1b[31mred\x1b[0m", "\x1b]8;;http://evil.test\x07link\x1b]8;;\x07", "\x1b]0;title\x07", "\x1bP0;1|17/41\x1b\\", "\x1b[6n", "\x9b31m", "bell\x07",
		"over\rwritten", "back\b\b\bspace", "\u202edlrow\u202c", "\u2066hidden\u2069", "\u2028line", "null\x00byte", "\xff\xfe", "\x0b\x0c",
		"::set-output name=x::y", "::add-mask::x", "  ::error file=x::y", "##[error]x", "##vso[task.setvariable variable=x]y", "a%0A::warning::b", "##teamcity[message text='x']",
		"::stop-commands::tok", "section_start:1:x\r\x1b[0K",
	}
}

// controls are what must not be in a log: control bytes, marks of direction, and
// CI commands where a CI system looks for them.
var controls = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|(?m:^\\s*(::|##))|##(vso)?\\[|##teamcity")

func logInjection(t *Target) Outcome {
	text := strings.Join(injections(), "\n") + "\n"
	check := func(what string, r *Result) {
		t.Helper()
		if !strings.Contains(r.Output, t.Nonce) && !strings.Contains(r.Output, "evil") && !strings.Contains(r.Output, "title") {
			t.Errorf("%s: nothing of it was shown", what)
		}
		if !isText(r.Output) {
			t.Errorf("%s: the output is no UTF-8", what)
		}
		if found := controls.FindString(r.Output); found != "" {
			t.Errorf("%s: the output has %q", what, found)
		}
	}
	file := map[string]string{"text": text, "::error::x\x1b[31m": "x"}
	check("step", t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY . /c/\nRUN echo $NONCE; cat /c/text; cat /c/text >&2; ls /c; printf '::set'; sleep 0.1; echo '-output x'; exit 3\n", Files: file}))
	own := regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]") // the display's
	terminal := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY text /\nRUN echo $NONCE; cat /text\n", Files: file, Args: []string{"--progress", "tty", "--log-format", "text"}})
	for _, injected := range injections() {
		if strings.ContainsAny(injected, "\x1b\a") && strings.Contains(terminal.Output, injected) {
			t.Errorf("terminal: the output has %q", injected)
		}
	}
	terminal.Output = strings.ReplaceAll(own.ReplaceAllString(terminal.Output, ""), "\r", "")
	check("terminal", terminal)
	var lines []string
	for _, line := range injections() {
		if !strings.ContainsAny(line, "\x00\r\x0b") {
			lines = append(lines, "# "+line, "LABEL x=\""+line+"\"")
		}
	}
	check("Dockerfile", t.Build(Build{Dockerfile: "FROM $BUSYBOX AS x\n" + strings.Join(lines, "\n") + "\nRUN echo $NONCE '" + injections()[0] + "'; exit 1\n"}))
	check("Dockerfile that is wrong", t.Build(Build{Dockerfile: "FROM $BUSYBOX\n" + text + "evil $NONCE\n"}))
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()}, hostile.Rule{Path: "/manifests/", Do: hostile.Answer(http.StatusForbidden,
		http.Header{"Content-Type": {"application/json"}}, encode(t, map[string]any{"errors": []any{map[string]string{"code": "evil\x1b[31m", "message": text}}}))})
	check("registry", t.Build(Build{Dockerfile: "FROM " + registry.Addr + "/x:1\nRUN true\n", Args: []string{"--insecure-registry", registry.Addr, "--image-download-retry", "0"}}))
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	repo.Commit("main", repo.File("f", "x"))
	g.On(hostile.Rule{Method: "POST", Path: "/r.git/git-upload-pack", Skip: 1, Do: hostile.Sideband("remote: "+text, "evil "+text)})
	check("git", t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD " + repo.URL + "#main /x\n"}))
	event := func(kind string) string {
		return "any event " + string(encode(t, map[string]any{"kind": kind, "text": "evil " + text, "name": "evil " + text, "error": text, "data": []byte(text), "step": 900, "stream": 1})) + "\n"
	}
	script := event("start") + event("log") + event("warning") + event("info") + event("done")
	check("executor", t.BuildWith(script, Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE\n"}))
	return Contained
}
