package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const hintNone = "limit the job or the container that the build runs in"

// hintDelegate says how to get a group that this user may make groups in.
func hintDelegate() string {
	user := " --user"
	if os.Geteuid() == 0 {
		user = ""
	}
	return "start it in a group of its own: systemd-run" + user + " --scope -p Delegate=yes kbuild-sandbox build ...; " +
		"or name a group that this user may write with --cgroup-parent; or " + hintNone
}

// leafName is the group that the launcher moves into where it was alone in its
// own.
const leafName = "kbuild-sandbox-launcher"

func noParent(dir string, err error) *Error {
	return &Error{Msg: "no group can be made below " + dir, Err: err, Hint: hintDelegate()}
}

// parentV2 finds the group to make this one below, see the package.
func (d *directory) parentV2(need []string) (string, error) {
	_, first := handDown(d.own, need)
	if first == nil {
		return d.own, nil
	}
	if errors.Is(first, unix.EBUSY) && alone(d.own) {
		if err := d.moveAside(need); err == nil {
			return d.own, nil
		}
	}
	for dir := d.own; dir != d.top; dir = filepath.Dir(dir) {
		if file := limited(dir); file != "" {
			return "", &Error{
				Msg: "the caller's own group " + dir + " has a limit (" + file + ") out of which the build must not get, and no group can be made below it",
				Err: first, Hint: hintDelegate(),
			}
		}
		up := filepath.Dir(dir)
		if _, err := handDown(up, need); err == nil && writable(up) {
			return up, nil
		}
	}
	return "", noParent(d.own, first)
}

func writable(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS) == nil
}

// handDown makes groups below dir have the controllers. It returns those that
// they did not have before.
func handDown(dir string, need []string) ([]string, error) {
	// The kernel would do it for pids and cpu alone: but then the group becomes
	// the root of a threaded subtree, in which no process can be (cgroup-v2.rst).
	if in, err := words(dir, "cgroup.procs"); err != nil || len(in) > 0 && !isRoot(dir) {
		return nil, errors.Join(err, unix.EBUSY)
	}
	have, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	lack := missing(need, have)
	if len(lack) == 0 {
		return nil, nil
	}
	there, err := words(dir, "cgroup.controllers")
	if err != nil {
		return nil, err
	}
	if no := missing(lack, there); len(no) > 0 {
		return nil, &Error{Msg: "controller " + strings.Join(no, ", ") + " is not handed down to it"}
	}
	return lack, write(dir, "cgroup.subtree_control", "+"+strings.Join(lack, " +"))
}

// isRoot tells whether a group is the one at the top of the hierarchy.
func isRoot(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, fs.ErrNotExist)
}

// limited names the file of a group that holds a limit, or "".
func limited(dir string) string {
	for _, file := range []string{"memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max", "cpuset.cpus"} {
		f, err := words(dir, file)
		if err == nil && len(f) > 0 && f[0] != "max" {
			return file
		}
	}
	return ""
}

// alone tells whether this process is the only one in its group, and the group
// has none below.
func alone(dir string) bool {
	in, err := words(dir, "cgroup.procs")
	return err == nil && slices.Equal(in, []string{strconv.Itoa(os.Getpid())})
}

// moveAside puts this process into a leaf, so that its group may hand down
// controllers.
func (d *directory) moveAside(need []string) error {
	leaf := filepath.Join(d.own, leafName)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d.leaf = leaf
	err := write(leaf, "cgroup.procs", strconv.Itoa(os.Getpid()))
	if err == nil {
		d.enabled, err = handDown(d.own, need)
	}
	if err != nil {
		return errors.Join(err, d.moveBack())
	}
	return nil
}

// moveBack undoes moveAside. Nobody else can have come into the group since: it
// hands down controllers.
func (d *directory) moveBack() error {
	if d.leaf == "" {
		return nil
	}
	var err error
	if len(d.enabled) > 0 {
		err = write(d.own, "cgroup.subtree_control", "-"+strings.Join(d.enabled, " -"))
	}
	if err == nil {
		err = write(d.own, "cgroup.procs", strconv.Itoa(os.Getpid()))
	}
	if err == nil {
		err = os.Remove(d.leaf)
	}
	d.leaf, d.enabled = "", nil
	if err != nil {
		return fmt.Errorf("go back to cgroup %s: %w", d.own, err)
	}
	return nil
}
