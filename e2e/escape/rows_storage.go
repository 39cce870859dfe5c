package escape

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
)

// storageRows are what buildah, podman and containers-storage had.
func storageRows() []Attack {
	rows := []Attack{
		{ID: 64, Source: "CVE-2024-1753", Title: "bind mounts whose source is a link to / and up, in a stage and in the context",
			Want: []Outcome{Contained}, Run: bindSourceLink},
		{ID: 65, Source: "CVE-2024-9407", Title: "options of mounts that the parser does not know or cannot take",
			Want: []Outcome{Rejected}, Run: mountOptions},
		{ID: 66, Source: "CVE-2024-9675", Title: "cache mounts whose id and source lead up",
			Want: []Outcome{Contained}, Run: cacheTraversal},
		{ID: 67, Source: "CVE-2024-9676", Title: "/etc/passwd as a link to a file of the host, to a device and to /proc",
			Want: []Outcome{Rejected, Contained}, Run: passwdLink},
		{ID: 68, Source: "CVE-2024-11218, GHSA-5vpc-35f4-r8w6", Title: "two stages at once: one swaps a directory of a shared cache for a link while the other mounts below it",
			Want: []Outcome{Contained}, Run: stageRace},
		{ID: 69, Source: "CVE-2024-9341", Title: "targets of mounts that nobody asked for are links in the image",
			Want: []Outcome{Contained}, Run: automaticMounts},
		{ID: 70, Source: "CVE-2026-44517, GHSA-49p4-px3h-rq49", Title: "contexts as archives, whole and cut off, whose directory and Dockerfile are links out",
			Want: []Outcome{Rejected}, Run: archiveContextLinks},
		{ID: 71, Source: "CVE-2020-10696", Title: "an archive of a web server as context, with names that lead up",
			Want: []Outcome{Contained, Rejected}, Run: archiveContextNames},
		{ID: 72, Source: "CVE-2021-3602", Title: "the environment of builder and host, as a step and through /proc",
			Want: []Outcome{Contained}, Run: environment},
		{ID: 73, Source: "GHSA-q6r4-3wmg-fwcq", Title: "WORKDIR through links to directories of the host",
			Want: []Outcome{Contained}, Run: workdirLinks},
		{ID: 74, Source: "GHSA-rpcc-p8xm-rc6p", Title: "/dev/shm filled by one step is full for the next",
			Want: []Outcome{Limited}, Run: sharedMemory},
	}
	return inSection("2D", rows)
}

func inSection(section string, rows []Attack) []Attack {
	for i := range rows {
		rows[i].Section = section
	}
	return rows
}

func bindSourceLink(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX AS evil
RUN echo $NONCE > /mark && ln -s / /link && ln -s ../../../../../../.. /up && ln -s /proc/1/root /magic && mkdir /a && ln -s /link/up/link /a/b
FROM $BUSYBOX
RUN --mount=type=bind,from=evil,source=/link,target=/m,rw echo link $(cat /m/mark) && ls /m && echo > /m/written
RUN --mount=type=bind,from=evil,source=/up,target=/m,rw echo up $(cat /m/mark) && ! ls /m/written
RUN --mount=type=bind,from=evil,source=/a/b,target=/m echo twice $(cat /m/mark)
RUN --mount=type=bind,from=evil,source=../../..,target=/m echo dots $(cat /m/mark)
RUN --mount=type=bind,source=root,target=/m,rw echo context $(cat /m/nonce) && ls /m && echo > /m/written
RUN --mount=type=bind,source=../../../..,target=/m echo dots in the context $(cat /m/nonce)
`,
		Prepare: func(dir string) error { return os.Symlink("/", filepath.Join(dir, "root")) },
	})
	r.Hides(`kbuild-executor`, `\d canary$`)
	out := r.Done(`link $NONCE`, `up $NONCE`, `twice $NONCE`, `dots $NONCE`, `context $NONCE`, `dots in the context $NONCE`)
	// What is not in the stage or in the context is not found elsewhere.
	for _, source := range []string{"from=evil,source=/magic/etc", "source=canary"} {
		r := t.Build(Build{
			Dockerfile: "FROM $BUSYBOX AS evil\nRUN ln -s /proc/1/root /magic\nFROM $BUSYBOX\n" +
				"RUN --mount=type=bind," + source + ",target=/m cat /m; ls /m\n",
			Prepare: func(dir string) error {
				return os.Symlink(filepath.Join(t.Dir, "canary"), filepath.Join(dir, "canary"))
			},
		})
		r.Rejected(`RUN --mount: ".*": not found`)
	}
	return out
}

func mountOptions(t *Target) Outcome {
	for option, complaint := range map[string]string{
		"type=bind,target=/m,bind-propagation=rshared":    `unexpected key 'bind-propagation'`,
		"type=bind,target=/m,relabel=shared":              `unexpected key 'relabel'`,
		"type=tmpfs,target=/m,upperdir=/x":                `unexpected key 'upperdir'`,
		"type=tmpfs,target=/m,size=1E":                    `invalid value for size: 1E`,
		"type=cache,target=/m,uid=-1":                     `invalid value -1 for uid`,
		"type=cache,target=/m,mode=99999999999999999":     `invalid value \d+ for mode`,
		"type=overlay,target=/m,lowerdir=/":               `unsupported mount type "overlay"`,
		`"type=bind,target=/m,source=/,rw\n,options=dev"`: `invalid`,
	} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN --mount=" + option + " echo $NONCE mounted\n"})
		r.Rejected(complaint)
		r.Hides(`\d $NONCE mounted`)
	}
	return Rejected
}

func cacheTraversal(t *Target) Outcome {
	up := strings.Repeat("../", 12) + strings.TrimPrefix(t.Dir, "/")
	dockerfile := `FROM $BUSYBOX AS seed
RUN mkdir -p /s && echo $NONCE > /s/seed && ln -s / /s/root && ln -s /s /alias
FROM $BUSYBOX
RUN --mount=type=cache,id=$UP/canary,target=/c echo first $(cat /c/mark); echo $NONCE > /c/mark
RUN --mount=type=cache,id=../../../../../../../../etc,target=/c ls -A /c | wc -l | sed 's/^/entries: /'
RUN --mount=type=cache,id=/,target=/c ls -A /c | wc -l | sed 's/^/entries: /'
RUN --mount=type=cache,id=a\0b,target=/c ls -A /c | wc -l | sed 's/^/entries: /'
RUN --mount=type=cache,id=x,from=seed,source=/s/root/alias,target=/c echo from $(cat /c/seed)
RUN --mount=type=cache,id=y,from=seed,source=../../../s,target=/c echo up $(cat /c/seed)
`
	build := Build{Dockerfile: strings.ReplaceAll(dockerfile, "$UP", up)}
	r := t.Build(build)
	r.Done(`\d first$`, `\d from $NONCE`, `\d up $NONCE`, `\d entries: 0`)
	r.Hides(`entries: [1-9]`)
	r = t.Build(build)
	r.Done(`\d first $NONCE`) // it is a cache all the same
	names, err := os.ReadDir(filepath.Join(t.Dir, "out", "cache"))
	must(t, err)
	if len(names) == 0 {
		t.Error("nothing was kept")
	}
	// An executor that was taken over names the file itself.
	r = t.BuildWith(`build output {"kind":"cache","name":"../../../canary","digest":"right"} | x`, build)
	r.Shows(`hostile: hands out cache ../../../canary`)
	r.Rejected(`output refused: .*\.\./\.\./\.\./canary`)
	return Contained
}

// passwdLink has users looked up in files that are none.
func passwdLink(t *Target) Outcome {
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	for i, target := range []string{
		filepath.Join(t.Dir, "etc/passwd"), "/in/request.json", strings.Repeat("../", 20) + "proc/self/environ", "/dev/zero",
	} {
		link := func(name string) hostile.Entry {
			return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: target}
		}
		zero := func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 5 }
		base := registry.Image(fmt.Sprintf("passwd%d", i), v1.Config{}, hostile.Tar(t,
			hostile.Entry{Name: "etc/", Type: tar.TypeDir}, link("etc/passwd"), link("etc/group"),
			hostile.Entry{Name: "dev/", Type: tar.TypeDir}, hostile.Entry{Name: "dev/zero", Type: tar.TypeChar, Head: zero}))
		args := []string{"--insecure-registry", registry.Addr}
		// A part of the word would be found if a canary file was read.
		r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY --chown=kbuild-canary:root nonce /owned\nUSER kbuild-canary\nRUN [\"/none\"]\n", Args: args})
		r.Rejected(`Dockerfile:[24]: .*(kbuild-canary|/etc/passwd)`)
	}
	if n := registry.Asked("GET", "/blobs/"); n < 8 {
		t.Fatalf("%d blobs of 8 were pulled", n)
	}
	return Rejected
}

func stageRace(t *Target) Outcome {
	const mounts = 12
	mount := "RUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/d/etc --mount=type=bind,target=/c/d/tmp/x " +
		"grep -q root /etc/passwd && echo mounted below || echo mounted over\n"
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX
RUN --mount=type=cache,id=race,target=/c mkdir -p /c/real/etc /c/real/tmp/x && ln -sfn real /c/d
FROM $BUSYBOX AS swap
COPY --from=0 /etc/group /
RUN --mount=type=cache,id=race,target=/c i=0; end=$(($(date +%s) + 2)); cd /c; \
    while [ $(date +%s) -lt $end ]; do ln -s / l; mv -T l d; ln -s real l; mv -T l d; i=$((i + 1)); done; echo $NONCE swapped $i
FROM $BUSYBOX AS mount
COPY --from=0 /etc/group /
` + strings.Repeat(mount, mounts) + `RUN grep -q root /etc/passwd && ls -A /tmp | grep -v x | wc -l | sed 's/^0/intact/'
FROM scratch
COPY --from=swap /etc/passwd /a
COPY --from=mount /etc/passwd /b
`})
	return r.Done(`\d $NONCE swapped [1-9]`, `\d mounted`, `\d intact`)
}

// automaticMounts has links where the builder mounts of its own accord.
func automaticMounts(t *Target) Outcome {
	canary, up := filepath.Join(t.Dir, "canary"), strings.Repeat("../", 20)
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	link := func(name, target string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: target}
	}
	files := hostile.Tar(t,
		hostile.Entry{Name: "etc/", Type: tar.TypeDir}, hostile.Entry{Name: "bin/", Type: tar.TypeDir}, hostile.Entry{Name: "run/", Type: tar.TypeDir},
		hostile.Entry{Name: "bin/busybox", Data: string(busybox)}, hostile.Entry{Name: "mark", Data: t.Nonce}, link("bin/sh", "busybox"),
		link("etc/resolv.conf", canary), link("etc/hosts", up+canary), link("etc/hostname", "/proc/1/environ"),
		link("run/secrets", up+t.Dir), link("var", "/"))
	kernel := hostile.Tar(t, link("dev", up+"dev"), link("proc", "/etc"), link("sys", "/"))
	args := []string{"--insecure-registry", registry.Addr, "--secret", "id=s,env=LENT"}
	dockerfile := `
RUN ["/bin/busybox", "sh", "-c", "b=/bin/busybox; echo $($b cat /mark) runs; $b cat /etc/resolv.conf /etc/hosts; $b ls /dev /sys /run; $b readlink /etc/resolv.conf"]
RUN --mount=type=secret,id=s --mount=type=cache,target=/var/c ["/bin/busybox", "sh", "-c", "/bin/busybox wc -c /run/secrets/s"]
RUN ["/bin/busybox", "ls", "-R", "/run"]
`
	r := t.Build(Build{Dockerfile: "FROM " + registry.Image("files", v1.Config{}, files) + dockerfile, Args: args, Env: []string{"LENT=lent"}})
	r.Done(`\d $NONCE runs`, `localhost buildkitsandbox|nameserver`, `\d 4 /run/secrets/s`, `\d `+canary+`$`)
	r = t.Build(Build{Dockerfile: "FROM " + registry.Image("kernel", v1.Config{}, files, kernel) + dockerfile, Args: args, Env: []string{"LENT=lent"}})
	r.Rejected(`/(proc|dev|sys) of the image is not a directory`)
	return Contained
}

func archiveContextLinks(t *Target) Outcome {
	link := func(name, target string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: target}
	}
	dockerfile := hostile.Entry{Name: "Dockerfile", Data: t.Expand("FROM $BUSYBOX\nRUN echo $NONCE\nCOPY . /c/\n")}
	canary := filepath.Join(t.Dir, "canary")
	for _, c := range []struct {
		name  string
		tar   []byte
		args  []string
		error string
	}{
		{"Dockerfile, a link to the host", hostile.Tar(t, link("Dockerfile", canary)), nil, `read [Dd]ockerfile`},
		{"Dockerfile, a link up", hostile.Tar(t, link("Dockerfile", "../../../../../../"+canary)), nil, `read [Dd]ockerfile`},
		{"Dockerfile through a link", hostile.Tar(t, link("d", filepath.Dir(canary)), hostile.Entry{Name: "d/canary", Data: "FROM scratch\n"}),
			[]string{"-f", "d/canary"}, `no build stage|leads out|not found|dockerfile`},
		{"ignore file, a link", hostile.Tar(t, dockerfile, link(".dockerignore", "/in/request.json")), nil, `leads out of the context`},
		{"subdirectory, a link", hostile.Tar(t, dockerfile, link("sub", t.Dir)), []string{"--context-sub-path", "sub"}, `sub`},
		{"subdirectory, up", hostile.Tar(t, dockerfile), []string{"--context-sub-path", "../../.."}, `\.\.`},
		{"cut off", hostile.Tar(t, link("Dockerfile", canary), hostile.Entry{Name: "x", Data: strings.Repeat("x", 9000)})[:4000], nil, `unexpected EOF`},
		{"no archive but text", []byte("FROM " + canary + "\n"), nil, `invalid reference|image reference`},
	} {
		t.Log(c.name)
		r := t.Build(Build{Context: "-", Stdin: bytes.NewReader(c.tar), Args: c.args})
		r.Rejected(c.error)
	}
	return Rejected
}

func archiveContextNames(t *Target) Outcome {
	entries := []hostile.Entry{{Name: "Dockerfile", Data: t.Expand("FROM $BUSYBOX\nCOPY . /c/\nRUN echo $NONCE; find /c -type f\n")}}
	for i, name := range hostile.SlipNames() {
		if name != ".." && !strings.HasPrefix(name, strings.Repeat("../", 100)) {
			entries = append(entries, hostile.Entry{Name: fmt.Sprintf("%s%d", name, i), Data: "slipped"})
		}
	}
	entries = append(entries,
		hostile.Entry{Name: "esc", Type: tar.TypeSymlink, Link: "../../../.."}, hostile.Entry{Name: "esc/tmp/through", Data: "slipped"},
		hostile.Entry{Name: "abs", Type: tar.TypeSymlink, Link: t.Dir}, hostile.Entry{Name: "abs/through", Data: "slipped"})
	archive := hostile.Tar(t, entries...)
	t.Web.Handle("/071/context.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, bytes.NewReader(archive)) })
	r := t.Build(Build{Context: "http://" + PublicIPv4 + "/071/context.tar"})
	return r.Done(`\d $NONCE`, `\d /c/slip0`, `\d /c/tmp/through`)
}

func environment(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
ARG GIVEN
ENV SET=set
RUN env | sort | sed 's/^/step: /'; for p in /proc/[0-9]*; do tr '\0' '\n' < $p/environ; done 2>&1 | sort -u | sed 's/^/proc: /'; echo $NONCE
`,
		Args: []string{"--build-arg", "GIVEN=given"}, Env: []string{"HIDDEN=hidden-value", "LD_PRELOAD_X=x"},
	})
	r.Hides(`HIDDEN`, `hidden-value`, `RUNNER_TOKEN`, `DOCKER_CONFIG`, `LD_PRELOAD_X`, `GOMAXPROCS`, `step: TMPDIR`)
	return r.Done(`$NONCE`, `step: GIVEN=given`, `step: SET=set`, `proc: GIVEN=given`)
}

func workdirLinks(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: t.Here(`FROM $BUSYBOX AS base
RUN ln -s $DIR /host && ln -s ../../../../../..$DIR /up && mkdir /real && ln -s /real/../host /real/link && ln -s /proc/self/cwd /cwd
FROM base
USER app
WORKDIR /host/made
RUN echo $NONCE $(pwd) && echo > written || true
WORKDIR /up/etc
RUN pwd
WORKDIR /real/link/deeper
RUN pwd
WORKDIR ../../../../../../../..
RUN pwd && ls
`)})
	r.Hides(`\d canary$`)
	return r.Done(t.Here(`$NONCE $DIR/made`), t.Here(`\d $DIR/etc`), t.Here(`\d $DIR/deeper`), `\d /$`)
}

func sharedMemory(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
RUN dd if=/dev/zero of=/dev/shm/fill bs=1M 2>&1; echo $NONCE $(stat -c %s /dev/shm/fill)
RUN echo entries: $(ls -A /dev/shm | wc -l) && dd if=/dev/zero of=/dev/shm/again bs=1M count=7 2>/dev/null && echo fits
`, Args: []string{"--shm-size", "8m"},
	})
	r.Done(`No space left on device`, `$NONCE 8388608`, `entries: 0`, `\d fits`)
	return Limited
}
