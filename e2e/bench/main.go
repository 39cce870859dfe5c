// Command bench measures whole builds, pull and push included, against
// `buildah bud --isolation chroot --layers` and `buildah push`, in turn, and
// prints the medians of several runs.
//
//	bench [-n RUNS] [-modes "MODE..."] [-only ours|buildah] [-write] [CASE...]
//
// Each case is built in up to four modes:
//
//	cold     nothing is there: an empty cache directory, an empty storage, an
//	         empty repository
//	present  the base images are there, brought by a build of another context (or
//	         by buildah pull), but no result of a step; an empty repository
//	changed  all was built and pushed; then one file of the context was changed
//	cached   all was built and pushed; the same build again
//
// The goals of cold and present are parts of buildah's cold time in the same run.
// That of changed is what the steps took that had to run again, by our trace, and
// a second more. Everything cached takes less than a second.
//
// Case S measures what sandboxes of their own cost, case N the network of RUN
// steps, through the gateway; they have no modes.
//
// Case scale is all builds that grow in one thing, which is a case as well: size
// and files of the base, copies of files, steps, stages, builds at once, and the
// layers that are made in 1 GiB of memory. They are measured only if they are
// asked for, and not compared.
//
// Memory is the largest sum, over the whole process tree, of anonymous and
// shared memory (PSS, sampled); pages of files on disk are not in it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// bench is what all runs share.
type bench struct {
	bin      string
	tmp      string
	registry *rig.Registry
	runs     int
	only     string // builder; empty: all
	modes    []mode
	names    []string // cases; none: all
	traces   bool     // the launcher can tell where its time goes
}

func main() {
	b := &bench{bin: os.Getenv("KBUILD_BIN")}
	flag.IntVar(&b.runs, "n", 3, "runs of each build")
	flag.StringVar(&b.only, "only", "", "measure only ours or buildah")
	modes := flag.String("modes", "", "only these `modes` of cold, present, changed and cached")
	write := flag.Bool("write", false, "add the results to "+recordFile)
	flag.Parse()
	b.names = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if b.modes, err = parseModes(*modes); err == nil {
		err = b.run(ctx, *write)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, write bool) error {
	if b.bin == "" {
		b.bin = "bin"
	}
	if b.runs < 1 {
		return fmt.Errorf("%d runs: at least one is needed", b.runs)
	}
	var err error
	if b.tmp, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.tmp)
	if err := rig.Adopt(); err != nil {
		return err
	}
	b.traces = b.hasTrace(ctx)
	text, err := b.all(ctx)
	fmt.Print("\n" + text)
	if err != nil || !write {
		return err
	}
	return record(recordFile, b.heading(ctx, time.Now())+"\n"+text)
}

// all measures the chosen cases. A case that fails ends only itself: the others
// take long to measure.
func (b *bench) all(ctx context.Context) (string, error) {
	if err := b.known(); err != nil {
		return "", err
	}
	var results, scaled []result
	var text string
	var errs []error
	for _, c := range append(slices.Clone(allCases), scaleCases()...) {
		if !b.picked(c) || ctx.Err() != nil {
			continue
		}
		r, err := b.one(ctx, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		switch {
		case len(r.samples) == 0:
		case c.scale == "":
			results = append(results, r)
		default:
			scaled = append(scaled, r)
		}
	}
	if len(results) > 0 {
		text = report(results)
	}
	if len(scaled) > 0 {
		text += "\n" + scaleReport(scaled)
	}
	for _, more := range []struct {
		name    string
		measure func(context.Context) (string, error)
	}{{"S", b.sandboxes}, {"N", b.network}} {
		if !b.chosen(more.name) || ctx.Err() != nil {
			continue
		}
		var row string
		err := b.withRegistry(ctx, func() (err error) {
			row, err = more.measure(ctx)
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", more.name, err))
			continue
		}
		text += "\n" + row + "\n"
	}
	return text, errors.Join(errs...)
}

// picked says whether a case is to be measured. What grows is, if it is asked for.
func (b *bench) picked(c benchCase) bool {
	if c.scale == "" {
		return b.chosen(c.name)
	}
	return slices.Contains(b.names, c.scale) || slices.Contains(b.names, "scale")
}

func (b *bench) chosen(name string) bool { return len(b.names) == 0 || slices.Contains(b.names, name) }

// known refuses names that no case has.
func (b *bench) known() error {
	all := []string{"S", "N", "scale"}
	for _, c := range append(slices.Clone(allCases), scaleCases()...) {
		if name := cmp.Or(c.scale, c.name); !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, name := range b.names {
		if !slices.Contains(all, name) {
			slices.Sort(all)
			return fmt.Errorf("no case %q: there are %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// one prepares and measures a case.
func (b *bench) one(ctx context.Context, c benchCase) (r result, err error) {
	dir := filepath.Join(b.tmp, "case-"+c.name)
	defer os.RemoveAll(dir)
	fmt.Fprintf(os.Stderr, "%s: preparing\n", c.name)
	err = b.withRegistry(ctx, func() error {
		if err := b.prepare(ctx, c, dir); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		r, err = b.measure(ctx, c, dir)
		return err
	})
	return r, err
}

// withRegistry gives each case a registry of its own: what was pushed in all
// runs of a case can be many gigabytes.
func (b *bench) withRegistry(ctx context.Context, do func() error) error {
	dir, err := os.MkdirTemp(b.tmp, "registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if b.registry, err = rig.StartRegistry(ctx, dir); err != nil {
		return err
	}
	defer b.registry.Stop()
	return do()
}
