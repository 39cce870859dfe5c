package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// run is one RUN on its way.
type run struct {
	op   *plan.Run
	tree *rootfs.Tree
	env  Env
	// config is what the child is told.
	config childConfig
	// secrets are those that the command is lent, by id.
	secrets map[string][]byte
	// undo is done in reverse order when the command has ended.
	undo []func() error
}

// doRun runs a command on top of tree.
func doRun(ctx context.Context, op *plan.Run, tree *rootfs.Tree, env Env) (upper string, err error) {
	switch {
	case len(op.Args) == 0:
		return "", errors.New("RUN without a command")
	case op.Network != "" && op.Network != "default" && op.Network != "none" && op.Network != "host":
		return "", fmt.Errorf("RUN --network=%s: not supported", op.Network)
	}
	r := &run{op: op, tree: tree, env: env}
	defer func() {
		for i := len(r.undo) - 1; i >= 0; i-- {
			err = errors.Join(err, r.undo[i]())
		}
	}()
	stubs, err := r.prepare(ctx)
	if err != nil {
		return "", err
	}
	m, err := tree.Begin(ctx, stubs...)
	if err != nil {
		return "", err
	}
	defer m.Discard()
	r.config.Root = m.Root()
	if err := completeRoot(m.Root(), op.Cwd); err != nil {
		return "", err
	}
	if err := r.execute(ctx); err != nil {
		if env.Space.Full() {
			err = fmt.Errorf("%w: %w", err, unix.ENOSPC)
		}
		return "", err
	}
	return m.Commit()
}

// prepare makes everything that the command needs but its root: the config of
// the child, its files, the sources of its mounts. It returns the further lower
// directories that hold missing mount points.
func (r *run) prepare(ctx context.Context) (stubs []string, err error) {
	view, release, err := r.tree.View(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	id, err := lookupUser(view, r.op.User)
	if err != nil {
		return nil, &ExitError{Args: r.op.Args, Code: codeNotExecutable, Cause: err}
	}
	r.config = newConfig(r.op, r.env.Run, id)
	if err := r.addFiles(); err != nil {
		return nil, err
	}
	if err := r.lockCaches(ctx); err != nil {
		return nil, err
	}
	for _, m := range r.op.Mounts {
		if err := r.addMount(ctx, m); err != nil {
			return nil, err
		}
	}
	dir, err := r.mkdir()
	if err != nil {
		return nil, err
	}
	some, err := makeStubs(view, dir, r.config.Mounts)
	if err != nil || !some {
		return nil, err
	}
	return []string{dir}, nil
}

// mkdir makes a directory that is removed when the command has ended.
func (r *run) mkdir() (string, error) {
	dir, err := r.env.Space.Mkdir()
	if err != nil {
		return "", err
	}
	r.undo = append(r.undo, func() error { return os.RemoveAll(dir) })
	return dir, nil
}

// addFiles writes /etc/hosts and /etc/resolv.conf of this command and has them
// mounted, read-only as BuildKit does.
func (r *run) addFiles() error {
	dir, err := r.mkdir()
	if err != nil {
		return err
	}
	for name, data := range map[string]string{
		"resolv.conf": resolvConf(r.env.Run.DNS),
		"hosts":       hosts(r.config.Hostname, r.env.Run.Hosts),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			return fmt.Errorf("make /etc/%s: %w", name, err)
		}
		if err := os.Chmod(file, 0o644); err != nil {
			return fmt.Errorf("make /etc/%s: %w", name, err)
		}
		r.config.Mounts = append(r.config.Mounts, childMount{
			Source: file, Target: "/etc/" + name, ReadOnly: true,
		})
	}
	return nil
}

// completeRoot makes what a command needs and BuildKit leaves in the image too
// where the image lacks it: the directories of the kernel's filesystems and the
// working directory.
func completeRoot(root, cwd string) error {
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, name := range []string{"proc", "sys", "dev"} {
		err := unix.Mkdirat(dir, name, 0o755)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make /%s: %w", name, err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("make /%s: %w", name, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("/%s of the image is not a directory", name)
		}
	}
	at, err := beneath.Resolve(dir, cwd)
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	defer at.Close()
	if at.Leaf != "" {
		return &fs.PathError{Op: "chdir", Path: cwd, Err: unix.ENOTDIR}
	}
	if err := mkdirs(at.FD, at.Rest); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	return nil
}

// mkdirs makes directories below dir, each in the one before, mode 0755.
func mkdirs(dir int, names []string) error {
	fd, err := beneath.Dup(dir)
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	for _, name := range names {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "mkdir", Path: name, Err: err}
		}
		next, err := beneath.Openat(fd, name, beneath.OpenDir, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: name, Err: err}
		}
		unix.Close(fd)
		fd = next
	}
	return nil
}
