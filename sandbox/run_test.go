package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

func TestRun(t *testing.T) {
	start := time.Now()
	res, said, err := run(t, newJob(t, "ok"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v from start to end", time.Since(start))
	if res.Failure != nil || len(res.Posture) != 2 || res.Posture[0].Inside.Seccomp != 2 || res.Posture[1].Inside.Seccomp != 2 {
		t.Errorf("result %+v", res)
	}
	if !slices.Equal(said, []string{"here"}) {
		t.Errorf("events %q", said)
	}
}

// A file of the host that a shell has left open in the launcher does not reach
// runsc, whether or not the sandbox has a network.
func TestInheritedFiles(t *testing.T) {
	for _, mode := range []policy.EgressMode{policy.EgressNone, policy.EgressDefault} {
		j := newJob(t, "ok")
		fd, err := unix.Open(filepath.Join(j.Base, "left"), unix.O_RDWR|unix.O_CREAT, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		found := filepath.Join(j.Base, "found")
		script := "#!/bin/sh\n[ $1 = --version ] || ls -l /proc/$$/fd >>" + found + "\nexec " + j.Runsc + ` "$@"` + "\n"
		j.Runsc = filepath.Join(j.Base, "runsc")
		if err := os.WriteFile(j.Runsc, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, _, err := run(t, j, func(c *Config) { c.Network.Run.Mode = mode }); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		if list, err := os.ReadFile(found); err != nil || strings.Contains(string(list), "/left") || strings.Count(string(list), "socket:") < 2 {
			t.Errorf("%v: %v, runsc has\n%s", mode, err, list)
		}
	}
}

func TestFailureIsAResult(t *testing.T) {
	j := newJob(t, "fail")
	j.Tar = filepath.Join(j.Base, "new", "out.tar")
	res, _, err := run(t, j, nil)
	if err != nil || res.Failure == nil || res.Failure.ExitCode != 3 {
		t.Fatalf("result %+v, error %v", res, err)
	}
	if _, err := os.Stat(filepath.Join(j.Base, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the output is left: %v", err)
	}
}

// The executor says hello first, or fails, or is refused.
func TestHello(t *testing.T) {
	for act, msg := range map[string]string{"rude event": "before the hello", "rude result": "success before the hello"} {
		_, said, err := run(t, newJob(t, act), nil)
		if err == nil || !strings.Contains(err.Error(), msg) || len(said) != 0 {
			t.Errorf("%s: error %v, said %q", act, err, said)
		}
	}
	res, _, err := run(t, newJob(t, "stillborn"), nil)
	if err != nil || res.Failure == nil || res.Failure.Message != "no request" {
		t.Errorf("stillborn: %+v, %v", res, err)
	}
}

// tour runs the guest's look around; lines are by what stands before the colon.
func tour(t *testing.T, j job) map[string]string {
	t.Helper()
	_, said, err := run(t, j, func(c *Config) { c.Quota = 100 << 20 })
	if err != nil {
		t.Fatal(err)
	}
	return byName(said)
}

func byName(said []string) map[string]string {
	out := map[string]string{}
	for _, s := range said {
		k, v, _ := strings.Cut(s, ": ")
		out[k] = v
	}
	return out
}

var wantTour = map[string]string{
	"workspace":              "104857600",
	"list /":                 "b caches context context.tar contexts dev etc in kbuild-executor proc store sys tmp w",
	"list /w":                "",
	"list /in":               "Dockerfile ca-certificates.crt hosts request.json resolv.conf",
	"list /context":          "secret",
	"list /proc/self/fd":     "0 1 2 3 4 5 6 7",
	"secret":                 "for root alone <nil>",
	"write /x":               "true",
	"write /context/x":       "true",
	"write /in/x":            "true",
	"write /kbuild-executor": "true",
	"write /etc/x":           "true",
	"overlay":                "<nil>",
	"trusted xattr":          "<nil>",
	"whiteout":               "<nil>",
	"owner":                  "4711 815",
	"/etc/resolv.conf":       "<nil>",
	"/etc/hosts":             "<nil>",
	"bpf":                    "operation not permitted",
	"env":                    "HOME=/w PATH=/ TMPDIR=/w",
	"host":                   "kbuild-sandbox",
}

func TestTour(t *testing.T) {
	j := newJob(t, "tour")
	secret := filepath.Join(j.Base, "ctx", "secret")
	if err := os.Mkdir(filepath.Dir(secret), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("for root alone"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tour(t, j)
	for _, varies := range []string{"dns", "/etc/ssl/certs/ca-certificates.crt"} {
		t.Log(varies, got[varies])
		delete(got, varies)
	}
	// Go's poller has descriptors of its own.
	got["list /proc/self/fd"] = wantTour["list /proc/self/fd"]
	if d := cmp.Diff(wantTour, got); d != "" {
		t.Error(d)
	}
}

func TestQuotaStopsTheGuest(t *testing.T) {
	j := newJob(t, "fill")
	j.Quota = 48 << 20
	res, said, err := run(t, j, nil)
	if err != nil || res.Failure != nil {
		t.Fatal(res, err)
	}
	if want := []string{"48 MiB: write /w/big: no space left on device"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

func TestAsk(t *testing.T) {
	var mu sync.Mutex
	var hosts []string
	_, said, err := run(t, newJob(t, "@fetch ask one.example two.example:5000 [::1]:5000"), func(c *Config) {
		c.Answer = func(_ context.Context, a request.Ask) request.Answer {
			mu.Lock()
			defer mu.Unlock()
			hosts = append(hosts, a.Host)
			return request.Answer{ID: 99, Username: a.Host}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(said)
	want := []string{
		`A {"id":1,"username":"one.example"}`, `A {"id":2,"username":"two.example:5000"}`, `A {"id":3,"username":"[::1]:5000"}`,
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
}

func TestFlood(t *testing.T) {
	n := 0
	if _, _, err := run(t, newJob(t, "flood"), func(c *Config) {
		c.Sink = sinkFunc(func(e request.Event) { n += len(e.Data) })
		c.Request.Limits.Log = 1 << 30
	}); err != nil {
		t.Fatal(err)
	}
	if n != 400*500<<10 {
		t.Errorf("%d bytes", n)
	}
}

// A sandbox that ends badly is one readable error, with what it printed.
func TestBadEnds(t *testing.T) {
	for _, tt := range []struct{ act, msg, output string }{
		{"early", "build: the executor ended without a result (exit status 2)", "panic: at once"},
		{"panic", "build: the executor ended without a result (exit status 2)", "panic: guest ?[31mpanics"},
		{"exit", "build: the executor ended without a result (exit status 7)", ""},
		{"silent", "build: the executor ended without a result (exit status 0)", ""},
	} {
		t.Run(tt.act, func(t *testing.T) {
			_, _, err := run(t, newJob(t, tt.act), nil)
			var end *EndError
			if !errors.As(err, &end) || err.Error() != tt.msg || !strings.Contains(end.Output, tt.output) {
				t.Errorf("error %v, %+v", err, end)
			}
		})
	}
}

// What breaks the protocol is refused, and nothing comes of it.
func TestHostile(t *testing.T) {
	for _, tt := range []struct{ how, msg string }{
		{"kind", "malformed frame: unknown kind 0x3f"},
		{"length", "malformed frame: E announces 2147483648 bytes"},
		{"cut", "without a result"},
		{"json", "malformed frame: E: unexpected end"},
		{"event", `malformed frame: event "unheard"`},
		{"answer", "is not the executor's to send"},
		{"hello", "a second hello"},
		{"ask", "malformed frame: build asks for"},
		{"repo", "malformed frame: build asks for"},
		{"chunk", "bytes without an output"},
		{"end", "end without an output"},
		{"unasked", `"tar" was not asked for`},
		{"digest", "has digest sha256:2d71"},
		{"traversal", "output refused: digest"},
		{"short", "has 1 bytes instead of 2"},
		{"long", "has more than 2 bytes"},
		{"huge", "no space: "},
		{"index", "index.json is not JSON"},
		{"missing", "without handing out all that was asked for"},
		{"version", "result of version 9"},
		{"result", "result with digest"},
	} {
		t.Run(tt.how, func(t *testing.T) {
			j := newJob(t, "bad "+tt.how)
			j.Layout = filepath.Join(j.Base, "out")
			_, said, err := run(t, j, nil)
			if err == nil || !strings.Contains(err.Error(), tt.msg) {
				t.Errorf("error %v, want %q", err, tt.msg)
				if wall := new(WallError); errors.As(err, &wall) {
					t.Log(wall.Log)
				}
			}
			if slices.Contains(said, "unreachable") {
				t.Error("the build went on")
			}
			if _, err := os.Stat(j.Layout); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an output is left: %v", err)
			}
		})
	}
}

// A wall that is missing inside stops the build before it begins.
func TestPostureFailsClosed(t *testing.T) {
	for act, wall := range map[string]string{"liar": "seccomp", "oldposture": "gVisor"} {
		_, said, err := run(t, newJob(t, act), nil)
		var we *WallError
		if !errors.As(err, &we) || we.Wall != wall {
			t.Errorf("%s: error %v", act, err)
		}
		if slices.Contains(said, "unreachable") {
			t.Errorf("%s: the build went on", act)
		}
	}
}
