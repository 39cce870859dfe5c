package escape

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// buildkitRows are what BuildKit had.
func buildkitRows() []Attack {
	return inSection("2B", []Attack{
		{ID: 24, Source: "CVE-2024-23651", Title: "two builds at once share a cache; one swaps a directory of it for a link to / while the other mounts through it",
			Want: []Outcome{Contained}, Run: cacheRace},
		{ID: 25, Source: "CVE-2024-23652", Title: "a step moves what its mount points lie in and leaves links, so that their removal hits others",
			Want: []Outcome{Contained}, Run: stubRemoval},
		{ID: 26, Source: "CVE-2024-23653", Title: "RUN asks for privileges, a device and the host's network; # syntax names a frontend",
			Want: []Outcome{Rejected}, Run: entitlements},
		{ID: 27, Source: "CVE-2024-23650, CVE-2026-15792, GHSA-qx3x-mv6r-52p6", Title: "an executor sends frames that are malformed, too long, negative or out of turn",
			Want: []Outcome{Rejected}, Run: malformedFrames},
		{ID: 28, Source: "CVE-2026-33747, GHSA-4c29-8rgm-jvjj", Title: "ids, names of stages and targets, platforms and secrets that are paths, too long or hold NUL",
			Want: []Outcome{Contained}, Run: idsAsPaths},
		{ID: 29, Source: "CVE-2026-33748, GHSA-4vrq-3vrq-g6gg", Title: "directories of a git context that lead up, are links or lie in a submodule",
			Want: []Outcome{Rejected}, Run: gitSubdirectories},
		{ID: 30, Source: "GHSA-7236-3392-c5c6", Title: "values of flags and options that nobody knows: nothing runs with less walls",
			Want: []Outcome{Rejected}, Run: unknownValues},
		{ID: 31, Source: "GHSA-72x6-4j93-7w86, CVE-2026-47262", Title: "/etc/passwd and /etc/group that are huge, endless, a FIFO or a device",
			Want: []Outcome{Rejected}, Run: hugePasswd},
		{ID: 32, Source: "GHSA-32pv-7hq5-qhwq", Title: "whiteouts named like .. and /, in layers; COPY that replaces directories",
			Want: []Outcome{Contained}, Run: whiteoutsUp},
		{ID: 33, Source: "GHSA-hw3h-2gp9-cxpv", Title: "refs that are options, as a server lists them and as a Dockerfile asks for them",
			Want: []Outcome{Inert}, Run: optionRefs},
		{ID: 34, Source: "GHSA-g2h8-426c-7976", Title: "contexts as archives with names twice, through links, absolute, out of order",
			Want: []Outcome{Contained}, Run: contextStream},
		{ID: 35, Source: "GHSA-388v-wmr2-g2v2", Title: "caches whose first content is a link, and ids that differ by case or Unicode form only",
			Want: []Outcome{Contained}, Run: cacheRoots},
		{ID: 36, Source: "CVE-2023-26054", Title: "credentials in URLs of contexts and of ADD are not told: output, history, provenance, audit log",
			Want: []Outcome{Contained}, Run: credentialsInURLs},
		{ID: 37, Source: "BuildKit 4f26c2023", Title: "names that a server gives for what ADD downloads",
			Want: []Outcome{Contained}, Run: downloadNames},
		{ID: 38, Source: "CVE-2020-27534", Title: "another user puts directories and links into a shared $TMPDIR, under names that the launcher uses",
			Want: []Outcome{Contained}, Run: sharedTemporary},
		{ID: 39, Source: "BuildKit 56cf3cc0b", Title: "archives that are odd but honest: hard links through absolute links, parents left out; same result as others have",
			Want: []Outcome{Contained}, Run: honestArchives},
	})
}

func cacheRace(t *Target) Outcome {
	cache := filepath.Join(t.Dir, "out", "shared")
	build := func(t *Target, text string) *Result {
		return t.Build(Build{Dockerfile: text, Args: []string{"--cache-dir", cache}})
	}
	build(t, "FROM $BUSYBOX\nRUN --mount=type=cache,id=race,target=/c mkdir -p /c/real/etc && ln -s real /c/d\n").Done()
	other := t.Target(t.TB, t.ID)
	var both sync.WaitGroup
	both.Go(func() {
		r := build(other, fmt.Sprintf("FROM $BUSYBOX\nCOPY probe nonce /\nRUN --mount=type=cache,id=race,target=/c /probe 24 swap /c %d\n"+
			"RUN --mount=type=cache,id=race,target=/c rm -r /c/d && ln -s / /c/d && ln -sfn / /c/real2\n", raceTime))
		r.swapped()
	})
	mount := "RUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/d/etc grep -q ^root /etc/passwd || test -L /c/d; echo mounted $(cat /nonce)\n"
	build(t, "FROM $BUSYBOX\nCOPY nonce /\n"+strings.Repeat(mount, raceMounts)).Done(`mounted $NONCE`)
	both.Wait()
	t.findings = append(t.findings, other.findings...)
	// What the other build has left is a link to /: of the image.
	r := build(t, "FROM $BUSYBOX\nCOPY nonce /\nRUN --mount=type=cache,id=race,target=/c ls -l /c/; ls /c/d/nonce && echo link $(cat /c/d/nonce)\n"+mount)
	return r.Done(`link $NONCE`, `mounted $NONCE`)
}

func stubRemoval(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX
COPY nonce /
RUN --mount=type=bind,source=nonce,target=/x/victim --mount=type=tmpfs,target=/y/dir/home --mount=type=cache,target=/z/etc \
    mkdir /moved; mv /x /moved/x; ln -s / /x; mv /y/dir /moved/dir; ln -s / /y/dir; mv /z /moved/z; ln -s / /z; \
    echo untouched > /victim; echo $(cat /nonce) moved; ls -ld /x /y/dir /z
RUN cat /victim; ls -d /home /etc; rm -rf /x /y /z; ln -s /etc /late
RUN --mount=type=tmpfs,target=/late/new rm /late || rmdir /etc/new; ln -sfn / /late; echo late $(cat /nonce)
`})
	outcome := r.Done(`$NONCE moved`, `late $NONCE`)
	tree := r.Image().Tree.Entries(flat.Options{})
	for _, path := range []string{"/victim", "/home", "/etc", "/etc/passwd", "/nonce"} {
		if _, there := tree[path]; !there {
			t.Errorf("%s is not there any more", path)
		}
	}
	return outcome
}

func entitlements(t *Target) Outcome {
	for step, refusal := range map[string]string{
		"RUN --security=insecure echo $NONCE ran":                  `--security=insecure`,
		"RUN --device=evil.com/dev=all echo $NONCE ran":            `--device`,
		"RUN --network=host echo $NONCE ran":                       `network\.host`,
		"RUN --mount=type=bind,source=/,from=host,target=/h ls /h": `host`,
	} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\n" + step + "\n"})
		r.Rejected(refusal)
		r.Hides(`\d $NONCE ran`)
	}
	// A frontend is a program of somebody's: its image is not even asked for.
	before := len(t.Web.Hits())
	r := t.Build(Build{Dockerfile: "# syntax=$PUBLIC:80/evil/frontend:1\nFROM $BUSYBOX\nCOPY nonce /\nRUN echo ran $(cat /nonce)\n",
		Args: []string{"--insecure-registry", PublicIPv4 + ":80"}})
	r.Done(`ran $NONCE`)
	for _, path := range t.Web.Hits()[before:] {
		if strings.Contains(path, "frontend") {
			t.Errorf("the frontend was asked for: %s", path)
		}
	}
	return Rejected
}

// malformedFrames lets an executor that was taken over break the protocol.
func malformedFrames(t *Target) Outcome {
	for _, act := range []string{
		`frame O {"stream":1,"kind":"stored","size":-9223372036854775808,"digest":"sha256:x"}`,
		`frame O {"stream":7,"kind":"../../x","name":"../../../x","size":18446744073709551615}`,
		`frame E {"kind":null,"step":-1}`, `frame Q {"id":-1,"scope":{}}`, "frame C abc", "frame G {}",
	} {
		r := t.BuildWith("any "+act, Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE\n", Within: 40 * time.Second})
		r.Hides(`panic:`, `goroutine \d+`, `runtime error`)
		r.Shows(`hostile: sends frame`)
		r.Rejected(`(?i)protocol|malformed|unexpected|refused|breach|invalid`)
	}
	return Rejected
}

func idsAsPaths(t *Target) Outcome {
	long := strings.Repeat("x", 60_000) // a line has 65535 bytes at most
	up := strings.Repeat("../", 12) + t.Dir + "/canary"
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
COPY nonce /
RUN --mount=type=cache,id=` + up + `,target=/a --mount=type=cache,id=` + long + `,target=/b --mount=type=cache,id=C:\..\x,target=/c \
    --mount=type=cache,id=/,target=/d --mount=type=cache,id=..,target=/e --mount=type=secret,id=../../s,target=/run/s \
    ls -A /a /b /c /d /e; test $(cat /run/s) = lent-$(cat /nonce) && echo ran $(cat /nonce) with the secret
`, Args: []string{"--secret", "id=../../s,env=LENT"}, Env: []string{"LENT=lent-" + t.Nonce}})
	outcome := r.Done(`ran \S+ with the secret`)
	for name, dockerfile := range map[string]string{
		"stage":      "FROM $BUSYBOX AS ../../x\nRUN echo $NONCE ran\n",
		"long stage": "FROM $BUSYBOX AS " + strings.ToUpper(long) + "/\nRUN echo $NONCE ran\n",
		"from":       "FROM $BUSYBOX\nCOPY --from=../../../etc /passwd /x\nRUN echo $NONCE ran\n",
		"platform":   "FROM --platform=../../x $BUSYBOX\nRUN echo $NONCE ran\n",
		"image":      "FROM $REGISTRY/../../library/busybox:1\nRUN echo $NONCE ran\n",
		"NUL":        "FROM $BUSYBOX\nRUN --mount=type=cache,id=a\x00b,target=/c echo $NONCE ran\x00\n",
	} {
		t.Log(name)
		r := t.Build(Build{Dockerfile: dockerfile})
		r.Rejected(`Dockerfile:\d+: |Dockerfile`)
		r.Hides(`\d $NONCE ran`)
	}
	for flag, value := range map[string]string{"--target": "../../x", "--platform": "../../../x", "--build-context": "../x=.", "--cache-dir": long} {
		t.Build(Build{Dockerfile: "FROM $BUSYBOX\n", Args: []string{flag, value}}).Rejected(`.`)
	}
	return outcome
}

func gitSubdirectories(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	dockerfile := repo.File("Dockerfile", t.Expand("FROM $BUSYBOX\nCOPY nonce /\nRUN echo ran $(cat /nonce)\n"))
	nonce := repo.File("nonce", t.Nonce)
	repo.Commit("main", repo.Dir("good", dockerfile, nonce), repo.Link("link", "/etc"), repo.Link("up", ".."),
		repo.Dir("a", repo.Link("b", "../../../.."), dockerfile), dockerfile, nonce)
	repo.Commit("module", dockerfile, hostile.TreeEntry{Mode: "160000", Name: "module", Hash: strings.Repeat("1", 40)})
	t.Build(Build{Context: repo.URL + "#main:good"}).Done(`ran $NONCE`)
	// Dots end at the repository's root, as in BuildKit.
	t.Build(Build{Context: repo.URL + "#main:good/../../%2e%2e/.."}).Done(`ran $NONCE`)
	for _, sub := range []string{"main:link", "main:a/b", "main:up/good", "main:good/Dockerfile", "module:module"} {
		r := t.Build(Build{Context: repo.URL + "#" + sub})
		r.Rejected(`(?i)subdir|directory|not found|no such|lead|invalid|submodule`)
		r.Hides(`ran $NONCE`)
	}
	return Rejected
}

func unknownValues(t *Target) Outcome {
	for _, flags := range [][]string{
		{"--network", "Host"}, {"--network", "container:1"}, {"--net", "open"}, {"--allow", "security.insecure"}, {"--allow", "everything"},
		{"--image-format", "x"}, {"--compression", "x"}, {"--progress", "x"}, {"--call", "x"}, {"--output", "type=local,dest=/"}, {"--output", "type=x"},
		{"--security", "insecure"}, {"--privileged"}, {"--ulimit", "nofile=1"}, {"--isolation", "chroot"},
	} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE ran\n", Args: flags})
		r.Rejected(`.`)
		r.Hides(`$NONCE ran`)
		const usage = 2
		if r.Status != usage {
			t.Errorf("%q: status %d", flags, r.Status)
		}
	}
	for _, option := range []string{"--security=Sandbox", "--network=HOST", "--security="} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN " + option + " echo $NONCE ran\n"})
		r.Rejected(`Dockerfile:2: `)
		r.Hides(`\d $NONCE ran`)
	}
	return Rejected
}

func hugePasswd(t *Target) Outcome {
	huge := strings.Repeat("x:x:1000000:1000000:x:/:/bin/sh\n", 11<<20/32)
	special := func(name string, kind byte, major, minor int64) hostile.Entry {
		return hostile.Entry{Name: name, Type: kind, Head: func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor }}
	}
	for name, entries := range map[string][]hostile.Entry{
		"huge":   {file("etc/passwd", huge), file("etc/group", huge)},
		"line":   {file("etc/passwd", strings.ReplaceAll(huge, "\n", " ")), file("etc/group", "")},
		"FIFO":   {special("etc/passwd", tar.TypeFifo, 0, 0), special("etc/group", tar.TypeFifo, 0, 0)},
		"device": {special("etc/passwd", tar.TypeChar, 1, 5), special("etc/group", tar.TypeChar, 1, 5)},
		"link":   {link("etc/passwd", "/dev/zero"), special("dev/zero", tar.TypeChar, 1, 5), link("etc/group", "/dev/zero")},
	} {
		t.Log(name)
		base := t.Base(hostile.Tar(t, file("etc/.wh.passwd", ""), file("etc/.wh.group", "")), hostile.Tar(t, append([]hostile.Entry{dir("etc"), dir("dev")}, entries...)...))
		r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY --chown=root:victim nonce /x\nCOPY --chown=victim nonce /x\nUSER victim\nRUN echo $NONCE ran\n", Within: 30 * time.Second})
		r.Rejected(`(?i)passwd|group|user|limit|regular`)
		r.Hides(`\d $NONCE ran`)
	}
	return Rejected
}

func whiteoutsUp(t *Target) Outcome {
	base := func(names ...string) string {
		entries := []hostile.Entry{dir("a"), file("a/f", "x")}
		for _, n := range names {
			entries = append(entries, file(n, ""))
		}
		return t.Base(hostile.Tar(t, link("link", "/etc"), link("up", "../../../../../../.."), file("a/old", "x")), hostile.Tar(t, entries...))
	}
	for _, name := range []string{".wh...", "a/.wh..", ".wh.", "../.wh.etc", "a/../../.wh.bin"} {
		t.Build(Build{Dockerfile: "FROM " + base(name) + "\nCOPY nonce /\nRUN true\n"}).Rejected(`invalid archive: (whiteout of no name|leads out)`)
	}
	// What has a meaning has it below the image's root only.
	r := t.Build(Build{Dockerfile: "FROM " + base("a/.wh..wh..opq", "a/.wh..wh..wh..opq", ".wh..wh.aufs", ".wh..wh.plnk/x", "link/.wh.passwd", "up/.wh.w", "up/.wh.kbuild-executor") +
		"\nCOPY nonce /\nCOPY --link nonce /a/f\nCOPY nonce /link/nonce\nRUN ! ls /etc/passwd && ls /a/f && ! ls /a/old && echo contained $(cat /etc/nonce)\n"})
	return r.Done(`contained $NONCE`)
}

func optionRefs(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	refs := []string{"--upload-pack=touch " + t.Dir + "/out/owned", "-c core.sshCommand=x", "--output=" + t.Dir + "/out/owned", "$(touch owned)", "-"}
	var commit string
	for _, ref := range append(refs, "main") {
		commit = repo.Commit(strings.ReplaceAll(ref, "/", "_"), repo.File("Dockerfile", t.Expand("FROM $BUSYBOX\nCOPY nonce /\nRUN echo ran $(cat /nonce)\n")), repo.File("nonce", t.Nonce))
	}
	t.Build(Build{Context: repo.URL + "#main"}).Done(`ran $NONCE`)
	t.Build(Build{Context: repo.URL + "#" + commit}).Done(`ran $NONCE`)
	for _, ref := range refs {
		r := t.Build(Build{Context: repo.URL + "#" + strings.ReplaceAll(strings.ReplaceAll(ref, "/", "_"), " ", "%20")})
		if r.Status != 0 {
			r.Rejected(`(?i)ref|branch|invalid`)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(t.Dir, "out", "owned*")); len(names) > 0 {
		t.Errorf("a ref was a command: %s", names)
	}
	return Inert
}

func contextStream(t *Target) Outcome {
	entry := func(name, text string) hostile.Entry { return file(name, text) }
	archive := hostile.Tar(t,
		entry("Dockerfile", t.Expand("FROM $BUSYBOX\nCOPY . /c/\nRUN cat /c/nonce; ls -la /c\n")), entry("nonce", "first"),
		entry("a", "file"), link("a", "/etc"), entry("a/passwd", "x:x"), link("b", t.Dir), entry("b/canary", "over"), entry("b/etc/shadow", "over"),
		link("c", ".."), entry("c/ctx.canary", "over"), entry("/absolute", "x"), entry("../up", "x"), entry("d/late", "x"), dir("d"), link("d", "/"), entry("d/kbuild", "x"),
		hostile.Entry{Name: "hard", Type: tar.TypeLink, Link: "nonce"}, entry("hard", "x"), entry("nonce", t.Nonce+" second"), entry("./././nonce", t.Nonce+" third\n"))
	r := t.Build(Build{Context: "-", Stdin: bytes.NewReader(archive)})
	return r.Done(`$NONCE third`)
}

func cacheRoots(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX AS seed
RUN mkdir -p /real && echo seed > /real/f && ln -s /real /alias && ln -s / /root-link && ln -s ../../../.. /up
FROM $BUSYBOX
COPY nonce /
RUN --mount=type=cache,id=1,from=seed,source=/alias,target=/c cat /c/f && echo x > /c/new && ! ls /real
RUN --mount=type=cache,id=2,from=seed,source=/root-link,target=/c ls /c/real/f && echo x > /c/etc/passwd && grep -q ^root /etc/passwd
RUN --mount=type=cache,id=3,from=seed,source=/up,target=/c ls /c/real/f && ! ls /c/kbuild-executor
RUN --mount=type=cache,id=key,target=/c echo lower > /c/f
RUN --mount=type=cache,id=KEY,target=/c ! ls /c/f
RUN --mount=type=cache,id=café,target=/c echo composed > /c/f
RUN --mount=type=cache,id=café,target=/c ! ls /c/f
RUN --mount=type=cache,id=key,target=/c rm -rf /c/* && ln -s / /c/evil && echo roots $(cat /nonce)
RUN --mount=type=cache,id=key,target=/c/sub --mount=type=cache,id=key2,target=/c/sub/evil/etc ls /c/sub/evil/ && grep -q ^root /etc/passwd || ls /etc
`})
	return r.Done(`roots $NONCE`)
}

// credentialsInURLs uses the site's word as a password: the oracles find it.
func credentialsInURLs(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	repo.Commit("main", repo.File("Dockerfile", t.Expand("FROM $BUSYBOX\nCOPY . /c\nRUN echo ran $(cat /c/nonce); ls -a /c; cat /c/.git/config; true\n")), repo.File("nonce", t.Nonce))
	withPassword := func(url string) string { return strings.Replace(url, "http://", "http://user:"+t.Word+"@", 1) }
	var outcome Outcome
	for _, flags := range [][]string{{"--verbosity", "debug"}, {"--progress", "json", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"}} {
		args := append(flags, "--audit-log", "audit.json", "--metadata-file", "metadata.json", "--provenance-file", "provenance.json")
		outcome = t.Build(Build{Context: withPassword(repo.URL) + "#main", Args: args}).Done(`load build context from http://\w+:\w+@`)
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + withPassword(repo.URL) + " /g\nRUN echo ran $(cat /g/nonce); cat /g/.git/config\n", Args: args})
		if r.Status != 0 {
			r.Rejected(`password|credential|user`)
		}
	}
	if len(g.Told(t.Word)) == 0 {
		t.Error("nobody has used the password")
	}
	// Errors do not tell it either.
	t.Build(Build{Context: withPassword(repo.URL) + "#nowhere"}).Rejected(`nowhere`)
	t.Build(Build{Context: withPassword(g.URL) + "/absent.git#main"}).Rejected(`.`)
	return outcome
}

func downloadNames(t *Target) Outcome {
	names := []string{
		"../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fx", "/etc/passwd", `..\..\x`, "a\x00b", ".dockerignore", "..", ".", "", strings.Repeat("n", 5000), "x/../../y", "\n",
	}
	dockerfile := "FROM $BUSYBOX\nCOPY nonce /\n"
	for i, name := range names {
		t.Web.Handle(fmt.Sprintf("/037-%s/%d", t.Nonce, i), func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Disposition"] = []string{`attachment; filename="` + strings.NewReplacer("\x00", "%00", "\n", "%0a").Replace(name) + `"`}
			fmt.Fprint(w, "downloaded")
		})
	}
	for i := range names {
		dockerfile += fmt.Sprintf("ADD http://$PUBLIC/037-$NONCE/%d /dst/%d/\n", i, i)
	}
	r := t.Build(Build{Dockerfile: dockerfile + "RUN cat /nonce; ls -laR /dst; cat /etc/passwd\n"})
	outcome := r.Done(`$NONCE`, `root:x:0:0`)
	found := 0
	for path, e := range r.Image().Tree.Entries(flat.Options{}) {
		if e.Type != "file" || e.Size != int64(len("downloaded")) {
			continue
		}
		if found++; !strings.HasPrefix(path, "/dst/") || strings.Count(path, "/") != strings.Count("/dst/0/name", "/") {
			t.Errorf("a download is at %q", path)
		}
	}
	if found != len(names) {
		t.Errorf("%d of %d downloads are there", found, len(names))
	}
	return outcome
}

// sharedTemporary: in a shared $TMPDIR, what is not the launcher's own is neither
// used nor removed.
func sharedTemporary(t *Target) Outcome {
	const other = 12345
	tmp := filepath.Join(t.Dir, "out", "shared-tmp")
	must(t, os.Mkdir(tmp, 0o777))
	must(t, os.Chmod(tmp, 0o777|os.ModeSticky))
	victim := filepath.Join(t.Dir, "canary")
	for i, name := range []string{"kbuild-sandbox-1", "kbuild-sandbox-2.new", "kbuild-sandbox-3"} {
		dir := filepath.Join(tmp, name)
		put(t, filepath.Join(dir, "staging"), victim+"\n"+t.Dir+"/home\n", 0o600)
		must(t, os.Symlink(t.Dir+"/home", filepath.Join(dir, "state")))
		must(t, os.Symlink(t.Dir+"/home", filepath.Join(dir, "rootfs")))
		if i != 1 {
			put(t, filepath.Join(dir, "lock"), "", 0o600)
		}
		must(t, os.Chmod(dir, 0o700))
		must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error { return os.Lchown(path, other, other) }))
		old := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
	for n := range 64 { // names that a counter or a short random number would take
		must(t, os.Symlink(victim, filepath.Join(tmp, fmt.Sprintf("kbuild-sandbox-%d", 100+n))))
	}
	before := fingerprint(tmp)
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY nonce /\nRUN echo ran $(cat /nonce)\n", Env: []string{"TMPDIR=" + tmp}})
	outcome := r.Done(`ran $NONCE`)
	t.findings = append(t.findings, difference("another's", before, fingerprint(tmp))...)
	return outcome
}

func honestArchives(t *Target) Outcome {
	layer := hostile.Tar(t,
		dir("real"), file("real/f", "content"), link("abs", "/real"), link("rel", "real"), link("deep", "/abs"),
		hostile.Entry{Name: "hard-abs", Type: tar.TypeLink, Link: "abs/f"}, hostile.Entry{Name: "hard-slash", Type: tar.TypeLink, Link: "/real/f"},
		hostile.Entry{Name: "hard-deep", Type: tar.TypeLink, Link: "deep/f"}, hostile.Entry{Name: "hard-dot", Type: tar.TypeLink, Link: "./real/../real/f"},
		file("implied/parents/of/f", "content"), file("abs/through", "content"), file("./dot", "content"), file("trailing//slashes", "content"))
	r := t.Build(Build{Dockerfile: "FROM " + t.Base(layer) + "\nRUN for f in real/f hard-abs hard-slash hard-deep hard-dot implied/parents/of/f real/through dot trailing/slashes; do " +
		"echo \"$f: $(cat /$f) $(stat -c %h /$f)\"; done\nCOPY --from=$BUSYBOX /etc/passwd /abs/passwd\nRUN ls /real/passwd\n"})
	outcome := r.Done(`real/f: content 5`, `hard-abs: content 5`, `hard-slash: content 5`, `hard-deep: content 5`, `hard-dot: content 5`,
		`implied/parents/of/f: content 1`, `real/through: content 1`, `dot: content 1`, `trailing/slashes: content 1`)
	return outcome
}
