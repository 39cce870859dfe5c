package escape

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// podRows are what kaniko and other builders inside of a container had.
func podRows() []Attack {
	rows := []Attack{
		{ID: 75, Source: "kaniko #106, #1861, #2153", Title: "a step searches all files, environments and memory that it can see for credentials",
			Want: []Outcome{Contained}, Run: searchCredentials},
		{ID: 76, Source: "kaniko #1553", Title: "files of the builder in the step's root",
			Want: []Outcome{Contained}, Run: builderFiles},
		{ID: 77, Source: "kaniko #587", Title: "COPY, ADD, RUN and ONBUILD write to every path that the builder has",
			Want: []Outcome{Contained}, Run: overBuilder},
		{ID: 78, Source: "osscontainertools README (03550cef3)", Title: "a later step searches for the secret of an earlier one",
			Want: []Outcome{Contained}, Run: secretOfEarlierStep},
		{ID: 79, Source: "class", Title: "what a hostile stage leaves behind runs in the next stage",
			Want: []Outcome{Contained}, Run: residueOfStage},
	}
	return inSection("2E", rows)
}

// searchCredentials has the credentials lent to the build: it pulls with one and
// pushes with one.
func searchCredentials(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
RUN echo planted-$NONCE > /etc/planted
COPY probe nonce /
RUN for f in $(find / -path /sys -prune -o -path /proc -prune -o -type f -size -9000k -print); do grep -lE 'planted-nonce|"auths?"|builder:pw-|kbuild-canary-[0-9a-f]|BEGIN OPENSSH' $f /dev/null; done | sed 's/^/found file /'; \
    for p in /proc/[0-9]*; do tr '\0' '\n' < $p/environ | grep -E 'TOKEN|DOCKER|SECRET|PASS' | sed 's/^/found environment /'; done; \
    HELD=planted-$NONCE sleep 9 & sleep 0.2; /probe 75 memory planted-nonce-[0-9a-f] pw-[0-9a-f]{24} kbuild-canary-[0-9a-f]{24} '"auths?" *:'
`,
		Push: true,
	})
	r.Hides(`\d\.\d{3} found environment`, `\d\.\d{3} found file /(proc|root|home|run|var|tmp|w|in|kaniko|store)`)
	r.Done(`\d\.\d{3} found file /etc/planted`)
	return t.Verdict(r.Output)
}

// builderFiles compares what a step sees with what the image has.
func builderFiles(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX
RUN echo $NONCE; find / -xdev -mindepth 1 -maxdepth 1 | sort | sed 's/^/top: /'; find / -name '*kbuild*' -o -name '*executor*' -o -name 'request.json' -o -name '*.sock' | grep -v '^/proc/' | sed 's/^/odd: /'
`})
	image := map[string]bool{}
	for path := range r.Image().Tree.Entries(flat.Options{}) {
		image["/"+strings.Split(strings.Trim(path, "/"), "/")[0]] = true
	}
	for _, m := range regexp.MustCompile(`\d\.\d{3} top: (/\S+)`).FindAllStringSubmatch(r.Output, -1) {
		if !image[m[1]] {
			t.Errorf("%s is not the image's", m[1])
		}
	}
	r.Hides(`\d\.\d{3} odd: /`)
	return r.Done(`$NONCE`, `top: /bin`)
}

// builderPaths are where the builder has something, in its own root.
func builderPaths() []string {
	return []string{"/kbuild-executor", "/in/request.json", "/in/Dockerfile", "/in/ca-certificates.crt", "/store/index.json", "/context/nonce", "/w/layers",
		"/caches/x", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/kaniko/executor", "/kaniko/.docker/config.json", "/proc/self/exe", "/proc/1/exe"}
}

func overBuilder(t *Target) Outcome {
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	onbuild := []string{"RUN echo $NONCE > /onbuild"}
	var lines strings.Builder
	for i, path := range builderPaths() {
		if strings.HasPrefix(path, "/proc/") || path == "/etc/resolv.conf" {
			continue // what is written there is not the image's
		}
		onbuild = append(onbuild, "COPY nonce "+path)
		fmt.Fprintf(&lines, "ADD nonce %s\nRUN mkdir -p %s && echo $NONCE-%d > %s\n", path, filepath.Dir(path), i, path)
	}
	for i := range onbuild {
		onbuild[i] = t.Expand(onbuild[i])
	}
	base := registry.Image("onbuild", v1.Config{OnBuild: onbuild, Env: []string{"PATH=/bin"}}, busyboxLayer(t))
	r := t.Build(Build{
		Dockerfile: "FROM " + base + "\n" + lines.String() + "RUN cat /kbuild-executor && echo goes on\n",
		Args:       []string{"--insecure-registry", registry.Addr},
	})
	out := r.Done(`\d $NONCE-0`, `\d goes on`)
	tree := r.Image().Tree.Entries(flat.Options{})
	for _, path := range []string{"/kbuild-executor", "/kaniko/executor", "/in/request.json"} {
		if _, there := tree[path]; !there {
			t.Errorf("%s is not in the image", path)
		}
	}
	return out
}

func secretOfEarlierStep(t *Target) Outcome {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(t.Word)))
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
COPY probe nonce /
RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S sha256sum /run/secrets/s; cp /run/secrets/s /dev/shm/; (cat /run/secrets/s; sleep 100) > /dev/null & \
    cp /run/secrets/s /tmp/s && rm /tmp/s; echo started
RUN find / -xdev -type f -exec grep -lE 'kbuild-canary-[0-9a-f]{24}' {} \; | sed 's/^/found /'; find /dev/shm /run/secrets -mindepth 1 2>/dev/null | sed 's/^/found /'; \
    for p in /proc/[0-9]*; do tr '\0' '\n' < $p/environ | grep kbuild-canary; done; HELD=planted-$NONCE sleep 9 & sleep 0.2; /probe 78 memory planted-nonce-[0-9a-f] kbuild-canary-[0-9a-f]{24}; echo searched
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t find /c /t /run -type f | sed 's/^/found /'
`,
		Args: []string{"--secret", "id=s,env=LENT"}, Env: []string{"LENT=" + t.Word},
	})
	r.Hides(`\d\.\d{3} found `)
	r.Done(sum, `started`, `searched`)
	return t.Verdict(r.Output)
}

func residueOfStage(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: `FROM $BUSYBOX AS one
RUN mkdir -p /usr/local/bin && for p in ls cat sh id; do printf '#!/bin/busybox sh\necho hijacked\n' > /usr/local/bin/$p; chmod 755 /usr/local/bin/$p; done; \
    echo /lib/evil.so > /etc/ld.so.preload; echo 'echo hijacked' > /etc/profile; echo 'echo hijacked' > /root/.profile; echo evil:x:0:0::/:/bin/sh >> /etc/passwd; \
    ln -sf /bin/evil /bin/sh; mkdir -p /etc/x; chmod 0 /etc/x; (while :; do echo residue > /tmp/alive; sleep 0.1; done) & \
    mkfifo /tmp/pipe; hostname hijacked 2>/dev/null; echo $NONCE made; cp /bin/busybox /busybox-result
FROM $BUSYBOX AS two
ENV ENV=/root/.profile
COPY --from=one /busybox-result /busybox-tool
RUN id; cat /etc/passwd | grep -c evil; ls /usr/local/bin /tmp /etc/ld.so.preload; hostname; ps | grep -c '[r]esidue' | sed 's/^/left: /'; /busybox-tool echo $NONCE used
`})
	r.Hides(`\d\.\d{3} (hijacked|alive)`)
	return r.Done(`$NONCE made`, `$NONCE used`, `\d\.\d{3} 0$`, `buildkitsandbox`, `left: 0$`)
}
