package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mode is what a builder has from before when it builds.
type mode string

const (
	cold    mode = "cold"    // nothing
	present mode = "present" // the base images, but no result of a step
	changed mode = "changed" // all, but one file of the context is another now
	cached  mode = "cached"  // all: the same build once more
)

var allModes = []mode{cold, present, changed, cached}

// parseModes reads names with spaces or commas between; none: all.
func parseModes(text string) ([]mode, error) {
	names := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
	if len(names) == 0 {
		return allModes, nil
	}
	var modes []mode
	for _, name := range names {
		if !slices.Contains(allModes, mode(name)) {
			return nil, fmt.Errorf("no mode %q: there are %s", name, allModes)
		}
		modes = append(modes, mode(name))
	}
	return modes, nil
}

// round is one run of a case in all its modes.
type round struct {
	benchCase
	dir string // the context
	n   int
	// keep is what the builders keep between builds, each in a directory of its own.
	keep string
	out  *result
}

// measure runs a case in turn with all builders. What was measured before an
// error is in the result.
func (b *bench) measure(ctx context.Context, c benchCase, dir string) (result, error) {
	out := result{benchCase: c, samples: map[mode]map[string][]sample{}}
	for n := range b.runs {
		if err := b.round(ctx, round{c, dir, n, filepath.Join(b.tmp, "keep"), &out}); err != nil {
			return out, err
		}
	}
	return out, nil
}

// round measures the cold build whenever another one needs what it leaves.
func (b *bench) round(ctx context.Context, r round) error {
	defer os.RemoveAll(r.keep)
	if b.wants(cold) || b.wants(cached) || b.wants(changed) {
		if err := b.each(ctx, r, cold); err != nil {
			return err
		}
	}
	if b.wants(cached) {
		if err := b.each(ctx, r, cached); err != nil {
			return err
		}
	}
	if b.wants(changed) && r.changed != "" {
		if err := r.change(r.dir, r.n+1); err != nil {
			return err
		}
		if err := b.each(ctx, r, changed); err != nil {
			return err
		}
	}
	if b.wants(present) {
		if err := os.RemoveAll(r.keep); err != nil {
			return err
		}
		return b.each(ctx, r, present)
	}
	return nil
}

func (b *bench) wants(m mode) bool { return slices.Contains(b.modes, m) }

// each lets every builder build in one mode, which finds in keep what the modes
// before it have left there.
func (b *bench) each(ctx context.Context, r round, m mode) error {
	for _, w := range b.builders(r.benchCase) {
		s, err := b.once(ctx, r, m, w)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", w.name, m, err)
		}
		fmt.Fprintf(os.Stderr, "%s %-7s %-7s: %.1f s, %d MiB\n", r.name, m, w.name, s.wall.Seconds(), s.memory>>20)
		r.out.add(m, w.name, s)
	}
	return nil
}

// tooLong is when a build is taken to hang. Other cases are measured all the same.
const tooLong = 10 * time.Minute

func (b *bench) once(ctx context.Context, r round, m mode, w builder) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, tooLong)
	defer cancel()
	o := order{dir: r.dir, keep: filepath.Join(r.keep, w.name), flags: r.flags}
	o.dest = fmt.Sprintf("%s/bench/%s-%s-%d", b.registry.Host, strings.ReplaceAll(strings.ToLower(r.name), " ", "-"), w.name, r.n)
	if err := os.MkdirAll(o.keep, 0o700); err != nil {
		return sample{}, err
	}
	if m == present {
		o.dest += "-" + string(m) // no layer is there yet
		for _, base := range r.bases() {
			if err := w.base(ctx, b.base(base), o.keep); err != nil {
				return sample{}, fmt.Errorf("%s: %w", base, err)
			}
		}
	}
	o.dest += ":1"
	if r.together > 0 {
		return b.atOnce(ctx, r.together, o)
	}
	return w.build(ctx, o)
}
