package escape

import (
	"archive/tar"
	"fmt"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// runtimeRows are what runc, containerd, gVisor and kernels had.
func runtimeRows() []Attack {
	return inSection("2A", []Attack{
		{ID: 1, Source: "CVE-2019-5736", Title: "a step opens every program that runs, the executor's too, and writes to it",
			Want: []Outcome{Contained}, Step: "RUN /probe 1 exe\nRUN /probe 1 exe"},
		{ID: 2, Source: "CVE-2024-21626", Title: "WORKDIR at descriptors that should not be open; a step looks for open ones",
			Want: []Outcome{Contained}, Run: leakedDescriptors},
		{ID: 3, Source: "CVE-2025-31133", Title: "an image has links for /dev and /dev/null, so that what is masked is something else",
			Want: []Outcome{Contained}, Run: maskingThroughLinks},
		{ID: 4, Source: "CVE-2025-52565", Title: "an image has links for /dev/console, /dev/pts, /dev/shm and /dev/mqueue",
			Want: []Outcome{Contained}, Run: consoleThroughLinks},
		{ID: 5, Source: "CVE-2025-52881", Title: "an image's /proc is a directory with links, so that writes to it go elsewhere",
			Want: []Outcome{Contained}, Run: fakeProc},
		{ID: 6, Source: "CVE-2019-19921, CVE-2021-30465", Title: "one stage swaps a directory of a shared cache for a link, another mounts below it",
			Want: []Outcome{Contained}, Run: mountRace},
		{ID: 7, Source: "GHSA-xjvp-4fhw-gc47", Title: "an image has links up and to the host for /dev, /proc, /sys, /etc, /tmp and /run",
			Want: []Outcome{Contained, Rejected}, Run: linksForMounts},
		{ID: 8, Source: "CVE-2024-45310", Title: "as row 6, and the mount points have to be made first",
			Want: []Outcome{Contained, Rejected}, Run: createRace},
		{ID: 9, Source: "CVE-2016-9962", Title: "a process of one step waits for those of the next, to trace them",
			Want: []Outcome{Inert}, Step: "RUN (setsid /probe 9 wait </dev/null >/dev/null 2>&1 &) ; sleep 0.2\nRUN /probe 9 alone"},
		{ID: 10, Source: "CVE-2022-27651, CVE-2022-24769, CVE-2022-29162", Title: "capabilities that a program with file capabilities inherits",
			Want: []Outcome{Contained}, Step: "RUN /probe 10 caps"},
		{ID: 11, Source: "CVE-2022-2990, CVE-2023-25173, CVE-2022-36109", Title: "supplementary groups that USER does not give, and ones that it gives and that are missing",
			Want: []Outcome{Contained}, Step: groupSteps},
		{ID: 12, Source: "CVE-2018-19333", Title: "a step attaches every System V and POSIX object that another makes at the same time, and listens to its network traffic",
			Want: []Outcome{Contained}, Run: foreignObjects},
		{ID: 13, Source: "gvisor#13481", Title: "open_tree, move_mount and their kin bring the old root back",
			Want: []Outcome{Inert}, Step: "RUN /probe 13 detach"},
		{ID: 14, Source: "gvisor#12444", Title: "a directory is mounted over a file, and a file over a directory",
			Want: []Outcome{Rejected}, Run: mountOverOtherKind},
		{ID: 15, Source: "CVE-2024-0132", Title: "an image asks for hooks and devices: CDI annotations, labels, variables, /etc/cdi",
			Want: []Outcome{Inert}, Run: deviceRequests},
		{ID: 16, Source: "CVE-2022-0492", Title: "a step mounts cgroups and sets a release_agent",
			Want: []Outcome{Inert}, Step: "RUN /probe 16 cgroup"},
		{ID: 17, Source: "gVisor's CVE track record", Title: "every system call, and the kinds of sockets: what answers is in testdata/surface.golden",
			Want: []Outcome{Inert}, Run: systemCalls},
		{ID: 18, Source: "CVE-2020-15257", Title: "a step looks for sockets that listen, by abstract name and by port",
			Want: []Outcome{Inert}, Run: func(t *Target) Outcome { return probeOn(t, t.Busybox, "RUN /probe 18 sockets") }},
		{ID: 19, Source: "CVE-2025-9074", Title: "a step connects to the host, its network, the gateway and metadata services, under every form of their addresses",
			Want: []Outcome{Rejected}, Run: forbiddenAddresses},
		{ID: 20, Source: "CVE-2024-29018", Title: "names that carry data out, of a step without network and of one with an allow-list",
			Want: []Outcome{Inert}, Run: leakByNames},
		{ID: 21, Source: "class: set-id programs", Title: "USER runs set-id programs and such with file capabilities: root at most, with a step's own bounding set",
			Want: []Outcome{Contained}, Step: "RUN /probe 21 mksuid\nUSER 1000\nRUN /probe 21 gained"},
		{ID: 22, Source: "class: user namespaces", Title: "unshare, clone, clone3, setns and pidfd_getfd, to be root in a namespace of its own",
			Want: []Outcome{Inert}, Step: "RUN /probe 22 userns"},
		{ID: 23, Source: "class: no ETXTBSY", Title: "a step overwrites the programs that run, of a base that another stage shares",
			Want: []Outcome{Contained}, Run: runningPrograms},
	})
}

// groupSteps: app (1000) is in group 2000 by /etc/group of the base.
const groupSteps = `RUN echo secret > /kept && chown 0:2000 /kept && chmod 0604 /kept
USER app
RUN /probe 11 groups 1000 1000 '[1000 2000]'
RUN /probe 11 negative /kept
USER 1000:1000
RUN /probe 11 groups 1000 1000 '[1000]'
USER 1000
RUN /probe 11 groups 1000 1000 '[1000 2000]'
USER 4711
RUN /probe 11 groups 4711 0 '[0]'
USER root
RUN /probe 11 groups 0 0 '[0]'`

func leakedDescriptors(t *Target) Outcome {
	r := t.Build(stepBuild([]Attack{{ID: t.ID, Step: "RUN /probe 2 fds\nUSER 1000\nRUN /probe 2 fds"}}))
	r.Done()
	outcome := t.Verdict(r.Output)
	for _, dir := range []string{"/proc/self/fd/3", "/proc/1/fd/7", "/proc/self/fd/9", "/dev/fd/5"} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nWORKDIR " + dir + "\nRUN pwd; ls -la /proc/self/fd/; cat ../../../etc/canary ../../../canary; echo $NONCE was here\n"})
		r.Hides(`kbuild-executor`, `request\.json`)
		if r.Status != 0 {
			r.Rejected(`enter the working directory /`)
		}
	}
	return outcome
}

// link is an entry of a layer that takes the place of what was there.
func link(name, target string) hostile.Entry {
	return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: target}
}

func file(name, text string) hostile.Entry { return hostile.Entry{Name: name, Data: text} }

func dir(name string) hostile.Entry { return hostile.Entry{Name: name + "/", Type: tar.TypeDir} }

// probeOn builds a step of a probe on a base.
func probeOn(t *Target, base, step string) Outcome {
	t.Helper()
	r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY probe nonce /\n" + step + "\nRUN echo still $(cat /nonce)\n"})
	r.Done(`still $NONCE`)
	return t.Verdict(r.Output)
}

// refusedOn wants that no step is run on a base, for a reason.
func refusedOn(t *Target, base, reason string) {
	t.Helper()
	r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY nonce /\nRUN echo ran $(cat /nonce)\n"})
	r.Rejected(reason)
	r.Hides(`ran $NONCE`)
}

func maskingThroughLinks(t *Target) Outcome {
	refusedOn(t, t.Base(hostile.Tar(t, link("dev", "/proc/sys/kernel"))), `/dev of the image is not a directory`)
	refusedOn(t, t.Base(hostile.Tar(t, link("proc", "/"))), `/proc of the image is not a directory`)
	return probeOn(t, t.Base(hostile.Tar(t, dir("dev"), link("dev/null", "/proc/sys/kernel/core_pattern"), link("dev/zero", "/etc/passwd"),
		dir("proc"), link("proc/kcore", "/etc/passwd"), link("proc/sys", "/etc"), link("proc/sysrq-trigger", "../../../proc/1/root"))),
		"RUN /probe 3 masks")
}

func consoleThroughLinks(t *Target) Outcome {
	base := t.Base(hostile.Tar(t, dir("dev"), dir("victim"), file("victim/file", "untouched"),
		link("dev/console", "/victim/file"), link("dev/pts", "/proc/1/fd"), link("dev/ptmx", "/victim/file"),
		link("dev/shm", "/victim"), link("dev/mqueue", "../../../../etc"), link("dev/tty", t.Dir+"/canary"), link("dev/fd", "/")))
	return probeOn(t, base, "RUN /probe 4 masks && /probe 4 proc /victim/file && echo x > /dev/ptmx; echo x > /dev/console; /probe 4 proc /victim/file")
}

func fakeProc(t *Target) Outcome {
	victim := file("victim", "untouched")
	for _, target := range []string{"fake", "../../../../../../proc/1/root/fake", "/dev/../proc"} {
		refusedOn(t, t.Base(hostile.Tar(t, dir("fake"), dir("fake/self"), link("fake/self/fd", "/"), victim, link("proc", target))),
			`/proc of the image is not a directory`)
	}
	return probeOn(t, t.Base(hostile.Tar(t, victim, dir("proc"), dir("proc/self"), link("proc/self/attr", "/"), link("proc/self/setgroups", "/victim"),
		link("proc/self/oom_score_adj", "/victim"), dir("proc/thread-self"), link("proc/thread-self/attr", "/"), link("proc/1", "/"), link("proc/sys", "/"))),
		"RUN /probe 5 proc /victim && /probe 5 masks")
}

func linksForMounts(t *Target) Outcome {
	up := "../../../../../../../.."
	outcome := Rejected
	for _, entries := range [][]hostile.Entry{
		{link("tmp", up+t.Dir+"/tmp"), link("etc", t.Dir+"/etc"), link("home", "/proc/1/root")},
		{link("run", up+t.Dir), link("var", "/")},
		{link("dev", t.Dir), link("proc", up+t.Dir+"/etc"), link("sys", "/etc"), link("tmp", up+t.Dir+"/tmp"), link("run", up+"/run")},
		{link("etc", t.Dir+"/etc"), link("dev", up+"/dev"), link("tmp", "/proc/1/root/tmp"), link("run", "/dev/shm")},
		{link("dev", "dev"), link("sys", "/")},
	} {
		r := t.Build(Build{Dockerfile: "FROM " + t.Base(hostile.Tar(t, entries...)) + "\nCOPY probe nonce /\nRUN --mount=type=secret,id=s --mount=type=tmpfs,target=/tmp/x echo ran $(cat /nonce); ls -la / /dev/\n",
			Args: []string{"--secret", "id=s,src=" + t.Dir + "/out.secret"}, Prepare: func(string) error { put(t, t.Dir+"/out.secret", "lent", 0o644); return nil }})
		r.Hides(`out\.canary`, `kbuild-executor`)
		if r.Status != 0 {
			r.Rejected(`of the image is not a directory|too many levels of symbolic links`)
			continue
		}
		r.Shows(`ran $NONCE`)
		outcome = Contained
	}
	return outcome
}

func mountOverOtherKind(t *Target) Outcome {
	var outcome Outcome
	for _, mount := range []string{"type=bind,source=sub,target=/etc/passwd", "type=tmpfs,target=/etc/passwd", "type=bind,source=nonce,target=/bin",
		"type=cache,target=/etc/passwd", "type=bind,source=sub,target=/etc/passwd/x"} {
		r := t.Build(Build{
			Dockerfile: "FROM $BUSYBOX\nRUN --mount=" + mount + " cat /etc/passwd; echo it did run\n",
			Files:      map[string]string{"sub/f": "x"},
		})
		outcome = r.Rejected(`(?i)not a directory|is a directory|mount point`)
		r.Hides(`\d it did run`)
	}
	return outcome
}

// deviceRequests also looks at every OCI spec that the launcher writes.
func deviceRequests(t *Target) Outcome {
	base := t.BaseWith(func(c *v1.Config) {
		c.Labels = map[string]string{"cdi.k8s.io/evil": "evil.com/dev=all", "hooks.createRuntime": "/evil"}
		c.Env = append(c.Env, "NVIDIA_VISIBLE_DEVICES=all", "CDI_DEVICES=evil.com/dev=all")
	}, hostile.Tar(t, dir("etc/cdi"), file("etc/cdi/evil.json", `{"cdiVersion":"0.6.0","kind":"evil.com/dev","devices":[{"name":"all","containerEdits":{
		"deviceNodes":[{"path":"/dev/kmsg"}],"mounts":[{"hostPath":"/","containerPath":"/evil"}],"hooks":[{"hookName":"createRuntime","path":"/evil"}]}}]}`),
		dir("usr/share/containers/oci/hooks.d"), file("usr/share/containers/oci/hooks.d/evil.json", `{"version":"1.0.0","hook":{"path":"/evil"},"stages":["prestart"]}`)))
	specs := t.specs(func() {
		r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY nonce /\nRUN echo ran $(cat /nonce); ls -d /evil /dev/kmsg /dev/nvidia* 2>&1; sleep 0.3\n"})
		r.Done(`ran $NONCE`, `/evil: No such file`, `/dev/kmsg: No such file`)
	})
	specs.plain("evil", "hooks\":{", "NVIDIA")
	return Inert
}

func runningPrograms(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX AS shared
COPY probe nonce /
FROM shared AS evil
RUN sleep 2 & /probe 23 text /bin/busybox
FROM shared AS good
RUN --mount=type=bind,from=evil,source=/bin/busybox,target=/evil ! cmp -s /evil /bin/busybox && /probe 23 alone; echo good $(cat /nonce)
FROM scratch
COPY --from=evil /bin/busybox /evil
COPY --from=good /bin/busybox /good
COPY --from=shared /bin/busybox /shared
`})
	outcome := r.Done(`good $NONCE`, `probe 23 $NONCE CONTAINED: /bin/busybox: <nil>; /proc/self/exe: <nil>`)
	tree := r.Image().Tree.Entries(flat.Options{LooseHardlinks: true})
	if tree["/good"].SHA256 != tree["/shared"].SHA256 || tree["/evil"].SHA256 == tree["/shared"].SHA256 {
		t.Errorf("busybox is %v, in the other stage %v, in the base %v", tree["/evil"], tree["/good"], tree["/shared"])
	}
	return outcome
}

func foreignObjects(t *Target) Outcome {
	path := "/012-" + t.Nonce
	t.Web.Handle(path, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second) // until the others listen
		fmt.Fprintln(w, "answer-"+t.Nonce)
	})
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX AS base
COPY probe nonce /
FROM base AS holds
RUN /probe 12 objects
FROM base AS steals
RUN /probe 12 steal
FROM base AS listens
RUN /probe 12 sniff ` + t.Nonce + `
FROM base AS speaks
RUN wget -qO /asked http://$PUBLIC` + path + ` && cat /asked
ADD http://$PUBLIC` + path + ` /added
FROM scratch
COPY --from=holds /nonce /a
COPY --from=steals /nonce /b
COPY --from=listens /nonce /c
COPY --from=speaks /added /d
`})
	r.Done(`holds $NONCE`, `listens $NONCE`, `answer-$NONCE`)
	return t.Verdict(r.Output)
}
