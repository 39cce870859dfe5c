package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

const (
	// dirPrefix begins the name of a run's directory; newSuffix ends it until
	// its lock is held.
	dirPrefix = "kbuild-sandbox-"
	newSuffix = ".new"
	lockName  = "lock"
	// stagingName lists the temporary outputs of a run, one a line, so that a
	// later start can remove them too.
	stagingName = "staging"

	// maxDirLen keeps the path of runsc's control socket below the 107 bytes of
	// a Unix socket's address; with a longer one runsc would put it elsewhere.
	maxDirLen = 107 - len("/b/r/runsc-"+containerID+".sock")

	// staleNew is the age, from which a directory that never got its lock is
	// taken for dead.
	staleNew = 10 * time.Minute
	// goneIn bounds the wait for killed processes.
	goneIn = 5 * time.Second
)

// workdir is one run's own directory. The lock on a file in it says that its
// launcher lives; the kernel drops it with the process, however that ends.
type workdir struct {
	home
	lock *os.File
}

// openWorkdir sweeps base and makes a new directory in it. What the sweep
// could not remove is told through warn.
func openWorkdir(ctx context.Context, base string, warn func(string)) (*workdir, error) {
	if err := checkLength(base); err != nil {
		return nil, err
	}
	if err := sweep(ctx, base); err != nil {
		warn("left over from an earlier run: " + err.Error())
	}
	for {
		w, err := makeWorkdir(base)
		// Another start's sweep may come between the lock's file and the lock.
		if !errors.Is(err, errLocked) && !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return w, err
		}
		if _, err := os.Stat(base); err != nil {
			return nil, fmt.Errorf("make work directory: %w", err)
		}
	}
}

func makeWorkdir(base string) (*workdir, error) {
	tmp, err := os.MkdirTemp(base, dirPrefix+"*"+newSuffix)
	if err != nil {
		return nil, fmt.Errorf("make work directory: %w", err)
	}
	lock, err := takeLock(filepath.Join(tmp, lockName), os.O_CREATE|os.O_EXCL)
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	// The rename keeps the lock, which belongs to the file and not to its name;
	// so a directory without the suffix always has had its lock.
	dir := strings.TrimSuffix(tmp, newSuffix)
	if err := os.Rename(tmp, dir); err != nil {
		lock.Close()
		os.RemoveAll(tmp)
		return nil, fmt.Errorf("make work directory: %w", err)
	}
	return &workdir{home: homeOf(dir), lock: lock}, nil
}

// checkLength refuses a path that is too long for what lies below it.
func checkLength(base string) error {
	const random = 10 // digits, at most
	if limit := maxDirLen - len("/"+dirPrefix) - random; len(base) > limit {
		return fmt.Errorf("work directory %s: its path has %d bytes, at most %d are possible: use a shorter one", base, len(base), limit)
	}
	return nil
}

var errLocked = errors.New("its launcher is running")

// takeLock opens a lock file of our own and locks it without waiting.
func takeLock(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock work directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock work directory: %w", err)
	}
	return f, nil
}

// remove ends every process of the run and removes its directory.
func (w *workdir) remove(ctx context.Context) error {
	err := clear(ctx, w.home)
	// The lock goes last: until then no sweep touches the directory.
	return errors.Join(err, w.lock.Close())
}

// clear is how a run's directory goes, whoever does it.
func clear(ctx context.Context, h home) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goneIn)
	defer cancel()
	for _, role := range roles {
		if err := runsc.Kill(ctx, h.of(role).state); err != nil {
			return fmt.Errorf("end the sandbox in %s: %w", h.of(role).bundle, err)
		}
	}
	if err := unmountBelow(h.dir); err != nil {
		return err
	}
	if err := removeGroups(ctx, h); err != nil {
		return err
	}
	removeStaged(filepath.Join(h.dir, stagingName))
	if err := removeTree(h.dir); err != nil {
		return fmt.Errorf("remove work directory: %w", err)
	}
	return nil
}

// removeTree removes a run's directory, the lock's file last: whoever dies meanwhile
// leaves one that the next sweep knows to be dead.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// dirForm is the name that openWorkdir gives. A person's own directory may begin
// in the same way: a clone of this project, mktemp -d with the product's name.
var dirForm = regexp.MustCompile(`^` + dirPrefix + `[0-9]+(` + regexp.QuoteMeta(newSuffix) + `)?$`)

// sweep removes what launchers of this user that are dead left in base: their
// processes, mounts and directories.
func sweep(ctx context.Context, base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return fmt.Errorf("read work directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !dirForm.MatchString(e.Name()) {
			continue
		}
		dir := filepath.Join(base, e.Name())
		info, err := os.Lstat(dir)
		if err != nil || !ours(info) {
			continue
		}
		if err := sweepOne(ctx, dir, info); err != nil && !errors.Is(err, errLocked) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func sweepOne(ctx context.Context, dir string, info fs.FileInfo) error {
	lock, err := takeLock(filepath.Join(dir, lockName), 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Being made, or its launcher died while it made or removed it. An empty one is
		// no loss: who is making it makes another.
		if os.Remove(dir) == nil {
			return nil
		}
		if time.Since(info.ModTime()) < staleNew || !onlyOurs(dir) {
			return nil
		}
	case err != nil:
		return err
	default:
		defer lock.Close()
	}
	return clear(ctx, homeOf(dir))
}

// onlyOurs tells whether a directory without a lock holds nothing but what a
// launcher puts into its own.
func onlyOurs(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	h := homeOf(dir)
	known := []string{h.archive, h.rootfs, h.store}
	for _, name := range []string{stagingName, lockName, recordName} {
		known = append(known, filepath.Join(dir, name))
	}
	for _, role := range roles {
		known = append(known, h.of(role).bundle)
	}
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !slices.Contains(known, filepath.Join(dir, e.Name()))
	})
}

// ours tells whether a directory was made by a launcher of this user: in a
// shared /tmp somebody else could put one there to have its content removed.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && info.Mode().Perm() == 0o700 && int(st.Uid) == os.Geteuid()
}

// unmountBelow detaches mounts below dir. None is made there, so this is only
// for the safety of what is removed next: a tree is never removed through a
// mount.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 {
			continue
		}
		at := unescapeMount(fields[4])
		if at != dir && !strings.HasPrefix(at, dir+"/") {
			continue
		}
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return nil
}

// unescapeMount undoes the escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
