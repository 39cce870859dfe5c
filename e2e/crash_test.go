package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

const (
	// crashes is how often TestCrash kills unless KBUILD_CRASHES says it.
	crashes = 8
	// crashVariants is how many contexts there are: what one build keeps is of use
	// to the next but one.
	crashVariants = 2
	// crashLimit has room for what one variant keeps and not for both: caches are
	// trimmed all the time.
	crashLimit = 24 << 20
)

// crashDockerfile has commands that fail if any process of theirs is killed. Others
// succeed with half of what they were to make, as in every other builder: a shell
// asks only for the status of the last one.
const crashDockerfile = `FROM $BUSYBOX AS tool
COPY v /
RUN set -eo pipefail; v=$(cat /v); head -c 8000000 /dev/zero | tr '\0' "$v" > /out
FROM $BUSYBOX
RUN --mount=type=cache,target=/kept set -e; date >> /kept/log; head -c 3000000 /dev/zero > /kept/big
COPY --from=tool /out /out
RUN cp /out /out2
`

// TestCrash kills builds at moments of which nobody knows: the launcher, or in every
// third round one of the processes below it, at some time or when some file of the cache
// directory is made, renamed or removed. It is right if it succeeds, the next build is
// right, and so is all that this finds and leaves in the cache directory. KBUILD_CRASHES is how many moments,
// KBUILD_SEED begins them as an earlier run did.
func TestCrash(t *testing.T) {
	rounds, seed := setting(t, "KBUILD_CRASHES", crashes), setting(t, "KBUILD_SEED", int(time.Now().UnixNano()>>10))
	t.Logf("KBUILD_CRASHES=%d KBUILD_SEED=%d", rounds, seed)
	bin := binaries(t)
	busybox, err := rig.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	registry := registryWith(t, map[string]v1.Image{"library/busybox:1": busybox})
	if err := rig.Adopt(); err != nil {
		t.Fatal(err)
	}
	known := rig.ChildrenOf(os.Getpid())
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for _, as := range []struct {
		name string
		bin  string
	}{{"root", bin}, {"user", asSomeone(t, bin)}} {
		t.Run(as.name, func(t *testing.T) {
			c := newCrash(t, as.bin, registry, random)
			for range (rounds + 1) / 2 {
				c.round()
				c.verify()
				if left := rig.Orphans(known...); len(left) > 0 {
					t.Fatalf("left running: %q", left)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	if os.Getenv(name) == "" {
		return otherwise
	}
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// crash is a cache directory and what is built with it.
type crash struct {
	*testing.T
	bin, registry, side string
	random              *rand.Rand
	n                   int                   // rounds so far
	digests             [crashVariants]string // of undisturbed builds
	took                time.Duration         // a build with nothing in its cache
	events              int                   // that it made in its cache directory
}

func newCrash(t *testing.T, bin, registry string, random *rand.Rand) *crash {
	side, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(side) })
	if err := os.Chmod(side, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &crash{T: t, bin: bin, registry: registry, side: side, random: random}
	for _, d := range []string{"tmp", "home", "cache"} {
		if err := os.MkdirAll(filepath.Join(side, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(crashDockerfile, "$BUSYBOX", registry+"/library/busybox:1")
	for v := range crashVariants {
		if err := os.Mkdir(c.context(v), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(c.context(v), "Dockerfile"), text)
		put(t, filepath.Join(c.context(v), "v"), strconv.Itoa(v))
		cache := filepath.Join(side, fmt.Sprintf("undisturbed%d", v))
		if err := os.MkdirAll(filepath.Join(cache, "layers"), 0o700); err != nil {
			t.Fatal(err)
		}
		watch := c.watch(cache)
		started := time.Now()
		c.digests[v] = c.build(v, cache)
		c.took, c.events = time.Since(started), watch.count(1<<30, nil)
		watch.close()
	}
	t.Logf("undisturbed: %v, %d events", c.took, c.events)
	return c
}

func (c *crash) context(v int) string { return filepath.Join(c.side, fmt.Sprintf("context%d", v)) }
func (c *crash) cache() string        { return filepath.Join(c.side, "cache") }

// command is a build of a variant.
func (c *crash) command(v int, cache string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, "kbuild-sandbox"), "build", "--cache", "--reproducible", "--no-push", "--insecure-registry", c.registry,
		"--cache-dir", cache, "--cache-max-size", strconv.Itoa(crashLimit), "--cache-size", strconv.Itoa(crashLimit), "--progress", "plain", c.context(v))
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(c.side, "tmp"), "HOME="+filepath.Join(c.side, "home"), "DOCKER_CONFIG="+filepath.Join(c.side, "home"),
		"WORK="+c.side, "SIDE="+c.side)
	return cmd
}

// build builds undisturbed, and returns the digest.
func (c *crash) build(v int, cache string) string {
	c.Helper()
	cmd := c.command(v, cache)
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil {
		c.Fatalf("%v\n%s", err, told.Bytes())
	}
	if bytes.Contains(told.Bytes(), []byte("warning")) {
		c.Errorf("warned:\n%s", told.Bytes())
	}
	if left := rig.Files(filepath.Join(c.side, "tmp")); len(left) > 0 {
		c.Errorf("left in $TMPDIR: %q", left)
	}
	return strings.TrimSpace(string(out))
}

// round kills one build, and looks at the next.
func (c *crash) round() {
	c.Helper()
	c.n++
	v := c.random.IntN(crashVariants)
	for !c.killed(v) { // else it was over before the moment came
	}
	started := time.Now()
	if got := c.build(v, c.cache()); got != c.digests[v] {
		c.Errorf("round %d: built %s instead of %s", c.n, got, c.digests[v])
	}
	c.Logf("round %d: the next build took %.1fs", c.n, time.Since(started).Seconds())
}

// killed begins a build and kills it at some moment, unless it is over by then.
func (c *crash) killed(v int) bool {
	if c.random.IntN(3) == 0 { // nothing is there, and all is to be written
		cmd := exec.Command(filepath.Join(c.bin, "kbuild-sandbox"), "prune", "--all", "--cache-dir", c.cache())
		cmd.Env = append(os.Environ(), "WORK="+c.side, "SIDE="+c.side)
		if out, err := cmd.CombinedOutput(); err != nil {
			c.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.MkdirAll(filepath.Join(c.cache(), "layers"), 0o700); err != nil {
		c.Fatal(err)
	}
	cmd := c.command(v, c.cache())
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	cmd.WaitDelay = time.Second // who else has them is looked for later
	watch := c.watch(c.cache())
	defer watch.close()
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	moment := c.await(watch, ended)
	victim := c.kill(cmd.Process.Pid)
	if victim == "" {
		<-ended
		return false
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
		c.Errorf("round %d: the launcher lives on without its sandbox", c.n)
	}
	c.Logf("round %d: killed %s at %s: %v", c.n, victim, moment, cmd.ProcessState)
	if got := strings.TrimSpace(out.String()); cmd.ProcessState.Success() && got != c.digests[v] {
		c.Errorf("round %d: it built %s instead of %s:\n%s", c.n, got, c.digests[v], told.Bytes())
	}
	return true
}

// await waits for some moment of a build and tells which one that is.
func (c *crash) await(w *watch, ended <-chan struct{}) string {
	if c.random.IntN(2) == 0 {
		after := time.Duration(c.random.Int64N(int64(c.took)))
		select {
		case <-ended:
		case <-time.After(after):
		}
		return after.String()
	}
	n := 1 + c.random.IntN(c.events)
	w.count(n, ended)
	return fmt.Sprintf("event %d of the cache directory", n)
}

// kill kills the launcher or, in every third round, a process below it, whose name it
// returns; none if all have ended.
func (c *crash) kill(launcher int) string {
	victims := []int{launcher}
	if below := descendants(launcher); c.n%3 == 0 && len(below) > 0 {
		c.random.Shuffle(len(below), func(i, j int) { below[i], below[j] = below[j], below[i] })
		victims = below
	}
	for _, pid := range victims {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || unix.Kill(pid, unix.SIGKILL) != nil {
			continue // it has just ended
		}
		switch first, _, _ := strings.Cut(string(line), "\x00"); {
		case pid == launcher:
			return "the launcher"
		case first == "":
			return "a process inside gVisor" // systrap's show no command line
		default:
			return filepath.Base(first)
		}
	}
	return ""
}

// descendants are the processes that a process has started, and those of these.
func descendants(pid int) []int {
	list := rig.ChildrenOf(pid)
	for _, child := range slices.Clone(list) {
		list = append(list, descendants(child)...)
	}
	return list
}

// watch tells what happens in a cache directory.
type watch struct{ fd int }

func (c *crash) watch(cache string) *watch {
	c.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, filepath.Join(cache, "layers"), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE)
	}
	if err != nil {
		c.Fatal(err)
	}
	return &watch{fd}
}

func (w *watch) close() { unix.Close(w.fd) }

// count waits for n events, or until ended; with a nil channel for those that there are.
func (w *watch) count(n int, ended <-chan struct{}) (seen int) {
	b := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1) // room for one
	for seen < n {
		if k, err := unix.Read(w.fd, b); err == nil && k > 0 {
			seen++
			continue
		}
		if ended == nil {
			return seen
		}
		select {
		case <-ended:
			return seen
		case <-time.After(100 * time.Microsecond):
		}
	}
	return seen
}
