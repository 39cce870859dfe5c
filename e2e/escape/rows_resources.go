package escape

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// resourceRows are what uses up the machine. They cross limits that are set low,
// so that all of them take seconds.
func resourceRows() []Attack {
	rows := []Attack{
		{ID: 104, Source: "class", Title: "hundreds of megabytes of output: one line without an end, and many lines on both streams",
			Want: []Outcome{Limited}, Run: logFlood},
		{ID: 105, Source: "class", Title: "fork bomb of processes in sessions of their own",
			Want: []Outcome{Limited, Rejected}, Run: forkBomb},
		{ID: 106, Source: "class", Title: "memory: anonymous, in /dev/shm and in the workspace",
			Want: []Outcome{Limited, Rejected}, Run: memoryHog},
		{ID: 107, Source: "class", Title: "disk: data, holes, a hundred thousand files, a tree a thousand deep, 1 TiB of holes",
			Want: []Outcome{Limited}, Run: diskHog},
		{ID: 108, Source: "class", Title: "steps that never end: deaf to signals, stopped, in the background, and an executor that does not end",
			Want: []Outcome{Limited}, Run: endless},
		{ID: 109, Source: "class", Title: "times before 1970, after 2106 and with fractions, in layers, steps and SOURCE_DATE_EPOCH",
			Want: []Outcome{Contained}, Run: oddTimes},
		{ID: 110, Source: "class", Title: "tens of thousands of open directories, sockets and watches",
			Want: []Outcome{Limited, Contained}, Run: handleHog},
		{ID: 111, Source: "class", Title: "thousands of connections and datagrams at once, to allowed and to forbidden addresses",
			Want: []Outcome{Limited, Contained}, Run: gatewayFlood},
		{ID: 112, Source: "class", Title: "an audit log that cannot keep up: every flow is in it, or the build fails",
			Want: []Outcome{Rejected}, Run: auditFlood},
	}
	return inSection("2H", rows)
}

func isText(s string) bool { return utf8.ValidString(s) }

func logFlood(t *Target) Outcome {
	const most = 4 << 20
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE; head -c 300000000 /dev/zero | tr '\\0' x\nRUN yes flood | head -c 100000000 & yes flood | head -c 100000000 >&2; wait\n" +
			"RUN echo after $NONCE\n",
		Args: []string{"--log-limit", "1m"}, Within: 2 * time.Minute,
	})
	out := r.Output
	r.Output = out[:min(len(out), 2000)] + out[max(0, len(out)-3000):] // patterns over megabytes take long
	r.Done(`$NONCE`, `after $NONCE`)
	if len(out) > most {
		t.Errorf("%d bytes were shown", len(out))
	}
	if !strings.Contains(out, "--log-limit") {
		t.Error("nobody says that something was left out")
	}
	return Limited
}

func forkBomb(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\nRUN /probe 105 forks 500; echo over\nRUN echo after $NONCE\n",
		Args:       []string{"--pids-limit", "64"},
	})
	if r.Status == 125 { // a limit that cannot be had is no build
		return r.Rejected(`cgroup`)
	}
	r.Done(`after $NONCE`)
	return t.Verdict(r.Output)
}

func memoryHog(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\nRUN echo $NONCE; /probe 106 fill 900\n",
		Args:       []string{"--memory", "400m"}, Within: 2 * time.Minute,
	})
	if r.Status == 125 { // a limit that cannot be had is no build
		return r.Rejected(`cgroup`)
	}
	r.Rejected(`out of memory: the limit of 400 MiB was reached`)
	r.Shows(`\d $NONCE`)
	// Another build is none the worse for it.
	t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN echo after $NONCE\n"}).Done(`after $NONCE`)
	return Limited
}

func diskHog(t *Target) Outcome {
	small := []string{"--work-size", "64m"}
	for _, run := range []string{
		"dd if=/dev/zero of=/fill bs=1M count=200", "i=0; while [ $i -lt 40 ]; do dd if=/dev/zero of=/f$i bs=1M count=5 2>/dev/null || exit 1; i=$((i+1)); done",
	} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE; " + run + "\n", Args: small})
		r.Rejected(`(?i)no space|work-size`)
		r.Shows(`\d $NONCE`)
	}
	// Holes cost nothing, and are no way around either.
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE; truncate -s 1024G /hole; ls -l /hole; rm /hole\n" +
		"COPY probe nonce /\nRUN /probe 107 tree 900 20000; ls /many | wc -l\nRUN echo after $NONCE\n",
		Args: []string{"--work-size", "512m"}, Within: 2 * time.Minute})
	r.Done(`\d $NONCE`, `\d 20000$`, `after $NONCE`)
	// Deeper than layers can be is an error of a line.
	r = t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\nRUN /probe 107 tree 1100 0\n"})
	r.Rejected(`directories nested more than 1000 deep`)
	if len(r.Output) > 10000 {
		t.Errorf("%d bytes were shown", len(r.Output))
	}
	// One that stays would be a layer of as many bytes.
	r = t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN truncate -s 1024G /hole; echo $NONCE\n", Args: []string{"--timeout", "1m"}})
	r.Rejected(`exceeds a limit: files of more than \d+ bytes`)
	r.Shows(`\d $NONCE`)
	return Limited
}

func endless(t *Target) Outcome {
	dockerfile := "FROM $BUSYBOX\nCOPY probe nonce /\nRUN echo $NONCE; trap '' TERM INT HUP QUIT; (setsid sleep 1000 &) ; (setsid sh -c 'kill -STOP $$' &) ; /probe 108 sleep\n"
	const most = 30 * time.Second // on a busy machine
	for flag, limit := range map[string]string{"--timeout": "6s", "--step-timeout": "3s"} {
		r := t.Build(Build{Dockerfile: dockerfile, Args: []string{flag, limit}})
		r.Rejected(`did not end within ` + limit)
		r.Shows(`\d $NONCE`)
		if r.Status != 124 || r.Took > most {
			t.Errorf("%s: status %d after %v", flag, r.Status, r.Took)
		}
	}
	// The executor itself does not end.
	r := t.BuildWith("build never", Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE\n", Args: []string{"--timeout", "5s"}})
	r.Rejected(`did not end within 5s`)
	if r.Status != 124 {
		t.Errorf("status %d", r.Status)
	}
	return Limited
}

func oddTimes(t *Target) Outcome {
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	var entries []hostile.Entry
	for i, seconds := range []int64{-2177452800, -1, 4291747200, 1 << 34, 1 << 40, 253402300799, 1 << 60, -1 << 60} {
		entries = append(entries, hostile.Entry{Name: fmt.Sprintf("t%d", i), Data: "x", Head: func(h *tar.Header) {
			h.Format, h.ModTime = tar.FormatPAX, time.Unix(seconds, 999999999)
		}})
	}
	base := registry.Image("times", v1.Config{Env: []string{"PATH=/bin"}}, busyboxLayer(t, entries...))
	args := []string{"--insecure-registry", registry.Addr}
	build := func(more ...string) *Result {
		return t.Build(Build{Dockerfile: "FROM " + base + "\nRUN echo $NONCE; ls /; touch -d 1901-12-14 /a; touch -d 2106-02-08 /b; touch -d 2500-01-01 /c; true\nCOPY nonce /n\n", Args: append(args, more...)})
	}
	r := build()
	r.Done(`\d $NONCE`)
	if len(r.Image().Tree.Entries(flat.Options{})) < len(entries) {
		t.Error("files are missing")
	}
	build("--rewrite-timestamp", "--build-arg", "SOURCE_DATE_EPOCH=1").Done(`\d $NONCE`)
	for _, epoch := range []string{"-1", fmt.Sprint(uint64(math.MaxUint64)), "1e9", "0x10", "99999999999999", strings.Repeat("9", 400)} {
		r := build("--build-arg", "SOURCE_DATE_EPOCH="+epoch)
		if r.Status != 0 {
			r.Rejected(`SOURCE_DATE_EPOCH`)
		}
	}
	return Contained
}

func handleHog(t *Target) Outcome {
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\nRUN /probe 110 handles 20000\nRUN echo after $NONCE\n", Within: 2 * time.Minute,
	})
	r.Done(`after $NONCE`)
	return t.Verdict(r.Output)
}

// auditRecords are the lines of an audit log, and its last.
func auditRecords(t *Target, file string) (records int, sum struct{ Lines, Flows, Records, Denied, Shed uint64 }) {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	for line := range strings.Lines(string(raw)) {
		var l struct {
			Summary *struct{ Lines, Flows, Records, Denied, Shed uint64 }
		}
		must(t, json.Unmarshal([]byte(line), &l))
		if l.Summary != nil {
			sum = *l.Summary
			continue
		}
		records++
	}
	return records, sum
}

func gatewayFlood(t *Target) Outcome {
	const each = 400
	log := filepath.Join(t.Dir, "out", "flows.jsonl")
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\n" +
			fmt.Sprintf("RUN /probe 111 flood %d $PUBLIC:80 $PUBLIC:81 169.254.169.254:80 10.20.30.40:80\n", each) +
			"RUN for i in 1 2 3 4 5; do wget -qO - http://$PUBLIC/hello && break; sleep 1; done; echo after $NONCE\n",
		Args: []string{"--audit-log", log}, Within: 2 * time.Minute,
	})
	r.Done(`hello from the world`, `after $NONCE`)
	records, sum := auditRecords(t, log)
	if uint64(records) != sum.Flows || sum.Denied < each {
		t.Errorf("%d records, %+v", records, sum)
	}
	return t.Verdict(r.Output)
}

func auditFlood(t *Target) Outcome {
	dockerfile := "FROM $BUSYBOX\nRUN for i in $(seq 1 100); do wget -qO /dev/null http://$PUBLIC/hello; done; echo $NONCE\n"
	log := filepath.Join(t.Dir, "out", "flows.jsonl")
	t.Build(Build{Dockerfile: dockerfile, Args: []string{"--audit-log", log}}).Done(`$NONCE`)
	if records, sum := auditRecords(t, log); records < 100 || uint64(records) != sum.Flows {
		t.Errorf("%d records, %+v", records, sum)
	}
	r := t.Build(Build{Dockerfile: dockerfile, Args: []string{"--audit-log", "/dev/full"}})
	return r.Rejected(`audit log: .*no space left`)
}
