package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Results of steps may come from OCI layouts and go to some. Fetch sees those that it
// reads; those that are written the launcher writes, as it writes the image's.

// guestResult is a layout that fetch reads, beside the named contexts.
func guestResult(i int) string { return guestContexts + "/cache" + strconv.Itoa(i) }

// moveResults gives the request the guest's paths of layouts.
func (c *Config) moveResults() {
	r := &c.Request
	r.CacheFrom, r.CacheTo = slices.Clone(r.CacheFrom), slices.Clone(r.CacheTo)
	for i := range r.CacheFrom {
		if r.CacheFrom[i].Layout != "" {
			r.CacheFrom[i].Layout = request.GuestPath(guestResult(i))
		}
	}
	for i := range r.CacheTo {
		if r.CacheTo[i].Layout != "" {
			r.CacheTo[i].Layout = request.GuestPath(guestResult(i)) // a name: nobody sees it there
		}
	}
}

// resultMounts are the mounts of the layouts that fetch reads.
func resultMounts(c Config) (list []specs.Mount) {
	for i, dir := range c.CacheFrom {
		if info, err := os.Stat(dir); dir != "" && err == nil && info.IsDir() {
			list = append(list, readOnly(guestResult(i), dir))
		}
	}
	return list
}

// resolveResults is resolvePlaces for layouts that are read.
func resolveResults(c *Config) error {
	for i, dir := range c.CacheFrom {
		if dir == "" {
			continue
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("layer cache: %w", err)
		}
		if err == nil {
			c.CacheFrom[i] = real
		}
	}
	return nil
}

// openResults makes the layouts ready that results go to, by the names that they have in
// request.Output. What cannot be written costs the results, unless they are to be strict.
func (b *build) openResults() error {
	b.kept = map[string]*outputs{}
	for i, dir := range b.c.CacheTo {
		if dir == "" {
			continue
		}
		to := b.c.Request.CacheTo[i]
		o, err := openOutputs(Outputs{LayoutDir: dir}, b.home.dir, b.store)
		if err != nil && to.Strict {
			return err
		}
		if err != nil {
			b.lose(to, err)
			b.c.Request.CacheTo[i].Copies, b.c.Request.CacheTo[i].Others = false, false
			continue
		}
		o.merge, o.mayFail = to.Merge, !to.Strict
		b.kept[strconv.Itoa(i)] = o
	}
	return nil
}

// commitResults gives the layouts of results their names.
func (b *build) commitResults() error {
	for name, o := range b.kept {
		i, _ := strconv.Atoi(name)
		to := b.c.Request.CacheTo[i]
		err := o.lost
		if err == nil && o.index { // else there are no results, or they were lost in build
			err = o.commit()
		}
		switch {
		case err != nil && to.Strict:
			return err
		case err != nil:
			b.lose(to, err)
		}
	}
	return nil
}

// lose is what of an error ends the build. A layout that may fail goes without what is
// still to come, unless the sandbox has broken the rules.
func (o *outputs) lose(err error) error {
	if err != nil && o.mayFail && !errors.Is(err, errOutput) {
		o.lost, err = cmp.Or(o.lost, err), nil
	}
	return err
}

// take is begin for a layout that may fail.
func (o *outputs) take(what request.Output) (incoming, error) {
	s, err := o.begin(what)
	if err = o.lose(err); err != nil {
		return nil, err
	}
	if s == nil {
		return nowhere{}, nil
	}
	return s, nil
}

// nowhere is a stream of what was lost already.
type nowhere struct{}

func (nowhere) write([]byte) error          { return nil }
func (nowhere) end(request.OutputEnd) error { return nil }
func (nowhere) discard()                    {}

// lose tells that results are not kept.
func (b *build) lose(to request.CacheTarget, err error) {
	warn(b.c.Sink, fmt.Sprintf("cache %s is not written: %v", to.Name(), err))
}

// discardResults removes what was not committed.
func (b *build) discardResults() {
	for _, o := range b.kept {
		o.discard()
	}
}

// mergeResults adds the results that dir has already to those in a new index.json.
func mergeResults(dir *os.Root, index string) error {
	// A named pipe that nobody writes to would be waited for.
	old, err := dir.OpenFile("index.json", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	if info, err := old.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, errors.New("index.json is no file"))
	}
	was, err := io.ReadAll(io.LimitReader(old, maxIndex+1))
	if err == nil && len(was) > maxIndex {
		err = fmt.Errorf("index.json has more than %d bytes", maxIndex)
	}
	added, e := dir.ReadFile(index)
	if err = errors.Join(err, e); err == nil {
		added, err = request.MergeResults(was, added)
	}
	if err != nil {
		return err
	}
	return dir.WriteFile(index, added, 0o644)
}
