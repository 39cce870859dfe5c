// Command bench measures whole builds, pull and push included, against
// `buildah bud --isolation chroot --layers` and `buildah push`: cold each time
// (no base image, no cache, an empty repository), the median of several runs.
//
//	bench [-n RUNS] [-only ours|buildah] [CASE...]
//
// Case N measures the network of RUN steps, through the gateway.
//
// Memory is the largest sum, over the whole process tree, of anonymous and
// shared memory (PSS, sampled); pages of files on disk are not in it.
package main

import (
	"context"
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
}

func main() {
	runs := flag.Int("n", 3, "runs of each build")
	only := flag.String("only", "", "measure only ours or buildah")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *runs, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, only string, names []string) error {
	bin := os.Getenv("KBUILD_BIN")
	if bin == "" {
		bin = "bin"
	}
	tmp, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := rig.Adopt(); err != nil {
		return err
	}
	b := &bench{bin: bin, tmp: tmp}
	if b.registry, err = rig.StartRegistry(ctx, tmp); err != nil {
		return err
	}
	defer b.registry.Stop()
	var rows []string
	for _, c := range allCases {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		dir := filepath.Join(tmp, "case-"+c.name)
		fmt.Fprintf(os.Stderr, "%s: preparing\n", c.name)
		if err := b.prepare(ctx, c, dir); err != nil {
			return fmt.Errorf("prepare %s: %w", c.name, err)
		}
		row, err := b.measure(ctx, c, dir, runs, only)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, row)
		os.RemoveAll(dir)
	}
	if len(names) == 0 || slices.Contains(names, "S") {
		row, err := b.sandboxes(ctx, runs)
		if err != nil {
			return fmt.Errorf("sandboxes: %w", err)
		}
		defer fmt.Println(row)
	}
	if len(names) == 0 || slices.Contains(names, "N") {
		row, err := b.network(ctx, runs)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		defer fmt.Println(row)
	}
	fmt.Printf("\n%-34s %9s %9s %6s %5s %10s %10s\n", "case, median of "+fmt.Sprint(runs), "ours", "buildah", "ratio", "aim", "ours MiB", "buildah MiB")
	fmt.Println(strings.Join(rows, "\n"))
	return nil
}

// measure runs a case in turn with both builders and makes its row.
func (b *bench) measure(ctx context.Context, c benchCase, dir string, runs int, only string) (string, error) {
	results := map[string][]sample{}
	for i := range runs {
		for _, w := range []struct {
			who   string
			build func(ctx context.Context, dir, tmp, dest string) (sample, error)
		}{{"ours", b.ours}, {"buildah", b.buildah}} {
			if only != "" && only != w.who {
				continue
			}
			tmp := filepath.Join(b.tmp, "run")
			if err := os.MkdirAll(tmp, 0o755); err != nil {
				return "", err
			}
			s, err := w.build(ctx, dir, tmp, fmt.Sprintf("%s/bench/%s-%s-%d:1", b.registry.Host, strings.ToLower(c.name), w.who, i))
			if err != nil {
				return "", err
			}
			if left := rig.Files(tmp); len(left) > 0 {
				return "", fmt.Errorf("%s left %q", w.who, left)
			}
			fmt.Fprintf(os.Stderr, "%s %s: %.1f s, %d MiB\n", c.name, w.who, s.wall.Seconds(), s.memory>>20)
			results[w.who] = append(results[w.who], s)
		}
	}
	ours, theirs := median(results["ours"]), median(results["buildah"])
	ratio := "-"
	if theirs.wall > 0 && ours.wall > 0 {
		ratio = fmt.Sprintf("%.2f", ours.wall.Seconds()/theirs.wall.Seconds())
	}
	return fmt.Sprintf("%-34s %8.1fs %8.1fs %6s %5.1f %10d %10d", c.name+" "+c.what,
		ours.wall.Seconds(), theirs.wall.Seconds(), ratio, c.aim, ours.memory>>20, theirs.memory>>20), nil
}

// sample is one measured run.
type sample struct {
	wall   time.Duration
	memory int64 // bytes
}

// median takes the middle of wall times and of memory, each by itself.
func median(s []sample) sample {
	if len(s) == 0 {
		return sample{}
	}
	var walls []time.Duration
	var memory []int64
	for _, x := range s {
		walls = append(walls, x.wall)
		memory = append(memory, x.memory)
	}
	slices.Sort(walls)
	slices.Sort(memory)
	return sample{walls[len(walls)/2], memory[len(memory)/2]}
}
