// Command conformance runs Dockerfile cases against bin/kbuild-sandbox, every
// case in a sandbox of its own, and judges what comes out by the golden answers:
// those of e2e/language and those of the conformance suite, where there is one.
//
//	conformance [-v] [-run REGEXP] [-every N] [-j N] [-user | -buildah | -record]
//
// KBUILD_CONFORMANCE is the suite's directory, KBUILD_BIN that of the product's
// binaries. Status 1: a case fails that allowed_failures.txt does not list, a
// listed one passes, or something was left behind.
//
// -user builds as an ordinary user, whose the files of the cases are then.
//
// -buildah has Debian's buildah build the cases that say how it compares, and
// fails where it compares otherwise. -record asks a BuildKit, whose address is
// in BUILDKIT_HOST, and writes its answers into the cases of e2e/language.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

const caseTimeout = 60 * time.Second

// own is where the cases of this repository are.
const own = "e2e/language"

type settings struct {
	suite   string // the conformance suite; empty: there is none
	allowed string
	builder builder
	jobs    int
	keep    bool
	user    bool // ours builds as an ordinary user
	every   int  // only each so many-th case; 1: all
}

// runner is what all cases share.
type runner struct {
	settings
	registry *rig.Registry
	bases    string
	tmp      string
}

func main() {
	var pattern string
	var verbose bool
	s := settings{suite: os.Getenv("KBUILD_CONFORMANCE")}
	flag.StringVar(&pattern, "run", "", "run the cases whose group/name matches this regular expression")
	flag.StringVar(&s.allowed, "allowed", "e2e/conformance/allowed_failures.txt", "cases that may fail")
	flag.IntVar(&s.jobs, "j", 2, "cases at a time")
	flag.BoolVar(&verbose, "v", false, "one line for every case")
	flag.BoolVar(&s.keep, "keep", false, "keep the cases' directories")
	against := flag.Bool("buildah", false, "compare buildah with the cases that are marked")
	flag.IntVar(&s.every, "every", 1, "run each `N`-th case only")
	user := flag.Bool("user", false, "build as an ordinary user")
	record := flag.Bool("record", false, "write the answers of BuildKit into the cases of e2e/language")
	flag.Parse()
	s.every = max(s.every, 1)
	switch {
	case *against:
		s.builder, s.suite, s.allowed = buildah{}, "", ""
	case *record:
		s.builder, s.suite, s.allowed = buildkit{addr: os.Getenv("BUILDKIT_HOST")}, "", ""
	default:
		s.builder = ours{bin: filepath.Join(cmp.Or(os.Getenv("KBUILD_BIN"), "bin"), "kbuild-sandbox")}
	}
	s.user = *user
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := runSuite(ctx, s, pattern, verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func runSuite(ctx context.Context, s settings, pattern string, verbose bool) (bool, error) {
	suites := []string{own}
	if _, err := os.Stat(filepath.Join(s.suite, "cases")); s.suite != "" && err == nil {
		suites = append(suites, s.suite)
	} else if s.suite = ""; os.Getenv("KBUILD_CONFORMANCE") == "" {
		fmt.Println("conformance: no suite (KBUILD_CONFORMANCE): only the cases of", own)
	}
	if os.Getuid() != 0 {
		return false, fmt.Errorf("the cases have files of other owners: run as root")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	cases, err := loadAll(suites, re.MatchString)
	if err != nil {
		return false, err
	}
	cases = s.builder.takes(cases)
	n := -1
	cases = slices.DeleteFunc(cases, func(*testCase) bool { n++; return n%s.every != 0 })
	allowed, err := readAllowed(s.allowed)
	if err != nil {
		return false, err
	}
	if err := rig.Adopt(); err != nil {
		return false, err
	}
	r, err := start(ctx, s)
	if err != nil {
		return false, err
	}
	defer r.stop()
	rep := newReport(os.Stdout, allowed, verbose, pattern == "" && s.every == 1)
	r.runAll(ctx, cases, rep)
	if b, ok := s.builder.(buildah); ok {
		b.detach(r.tmp)
	}
	rep.leftovers = append(rig.Orphans(r.registry.PID()), rig.Mounts(r.tmp)...)
	return rep.print(), ctx.Err()
}

// start makes the base images and pushes them to a fresh registry.
func start(ctx context.Context, s settings) (*runner, error) {
	tmp, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	r := &runner{settings: s, tmp: tmp, bases: filepath.Join(tmp, "bases")}
	if r.registry, err = rig.StartRegistry(ctx, tmp); err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	err = r.pushBases(ctx)
	if o, ok := r.builder.(ours); ok && r.user && err == nil {
		r.builder, err = o.asSomeone(tmp)
	}
	if err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (r *runner) stop() {
	r.registry.Stop()
	if r.keep {
		fmt.Println("kept", r.tmp)
		return
	}
	os.RemoveAll(r.tmp)
}

func (r *runner) runAll(ctx context.Context, cases []*testCase, rep *report) {
	todo := make(chan *testCase)
	var wg sync.WaitGroup
	for range r.jobs {
		wg.Go(func() {
			for c := range todo {
				begin := time.Now()
				problems := r.runCase(ctx, c)
				rep.add(c, problems, time.Since(begin))
			}
		})
	}
	for _, c := range cases {
		if ctx.Err() != nil {
			break
		}
		todo <- c
	}
	close(todo)
	wg.Wait()
}

// runCase lays a case out, builds it and judges the result: what is wrong.
func (r *runner) runCase(ctx context.Context, c *testCase) []string {
	// Short: a work directory below it has to hold a socket's path.
	dir := filepath.Join(r.tmp, fmt.Sprintf("c%d", c.Number))
	p := paths{
		dir: dir, files: filepath.Join(dir, "files"), tmp: filepath.Join(dir, "tmp"),
		layout: filepath.Join(dir, "layout"), host: r.registry.Host,
	}
	if err := os.MkdirAll(p.tmp, 0o755); err != nil {
		return []string{err.Error()}
	}
	if !r.keep {
		defer os.RemoveAll(dir)
	}
	// The repositories' files must lie there before they are served, and the
	// server's address must be known before the Dockerfile is written: so the
	// files are laid out twice.
	if err := c.layOut(p.files, strings.NewReplacer()); err != nil {
		return []string{"lay out: " + err.Error()}
	}
	web, err := c.serve(p.files, filepath.Join(dir, "served"))
	if err != nil {
		return []string{"serve: " + err.Error()}
	}
	defer web.Close()
	webHost := web.Listener.Addr().String()
	p.web = webHost
	p.replace = strings.NewReplacer("registry.test", p.host, "files.test", webHost)
	p.back = strings.NewReplacer(p.host, "registry.test", webHost, "files.test")
	if err := os.RemoveAll(p.files); err != nil {
		return []string{err.Error()}
	}
	if err := c.layOut(p.files, p.replace); err != nil {
		return []string{"lay out: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	out, err := r.builder.build(ctx, c, p)
	if err != nil {
		return []string{"start: " + err.Error()}
	}
	problems := r.builder.judge(c, out, p, r.bases)
	for _, f := range rig.Files(p.tmp) {
		problems = append(problems, "left behind in $TMPDIR: "+f)
	}
	return problems
}
