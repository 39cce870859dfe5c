package step

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

const (
	// maxUserFile is the largest passwd or group file that is read, in bytes.
	maxUserFile = 10 << 20
	// maxID is the largest uid or gid: larger ones are negative for some
	// programs, and 1<<32-1 means "leave it as it is" to chown.
	maxID = 1<<31 - 1
)

// identity is whom a USER names.
type identity struct {
	UID, GID uint32
	// Groups are the supplementary groups, the primary one first.
	Groups []uint32
	// Home is the home directory; "/" if passwd has none.
	Home string
}

// lookupUser finds whom spec, as in USER, names in the stage mounted at root.
// The rules are those of runc and BuildKit: user and group may be names or
// numbers; a number need not be in passwd and then has group 0; the groups that
// list the user are its supplementary ones, but not if a group is given.
func lookupUser(root, spec string) (identity, error) {
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return identity{}, err
	}
	defer unix.Close(dir)
	user, group, _ := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	id, name, err := findUser(dir, user)
	if err != nil {
		return identity{}, err
	}
	if err := findGroups(dir, &id, name, group); err != nil {
		return identity{}, err
	}
	if !slices.Contains(id.Groups, id.GID) {
		id.Groups = append([]uint32{id.GID}, id.Groups...)
	}
	return id, nil
}

// findUser looks user up in passwd; name is the entry's name, if there is one.
func findUser(dir int, user string) (id identity, name string, err error) {
	id.Home = "/"
	number, numeric, err := parseID(user)
	if err != nil {
		return id, "", fmt.Errorf("user %q: %w", user, err)
	}
	id.UID = number
	found := false
	err = eachEntry(dir, "/etc/passwd", func(f []string) (bool, error) {
		if found = f[0] == user || numeric && field(f, 2) == strconv.FormatUint(uint64(number), 10); !found {
			return true, nil
		}
		name = f[0]
		if home := field(f, 5); home != "" {
			id.Home = home
		}
		id.UID, id.GID, err = entryIDs(f)
		return false, err
	})
	switch {
	case err != nil:
		return id, "", err
	case found || numeric:
		return id, name, nil
	case user == "root":
		// Every image has a root, also one without passwd.
		return id, "", nil
	}
	return id, "", fmt.Errorf("unable to find user %s: no matching entries in passwd file", user)
}

// findGroups sets the group, if one is given, or else the groups of user name.
func findGroups(dir int, id *identity, name, group string) error {
	if group == "" && name == "" {
		return nil
	}
	number, numeric, err := parseID(group)
	if err != nil {
		return fmt.Errorf("group %q: %w", group, err)
	}
	found := false
	err = eachEntry(dir, "/etc/group", func(f []string) (bool, error) {
		gid, ok, err := parseID(field(f, 2))
		if err != nil || !ok {
			return true, nil // an entry that nobody can be in
		}
		if group == "" {
			if slices.Contains(strings.Split(field(f, 3), ","), name) && !slices.Contains(id.Groups, gid) {
				id.Groups = append(id.Groups, gid)
			}
			return true, nil
		}
		if f[0] == group || numeric && gid == number {
			id.GID, found = gid, true
		}
		return !found, nil
	})
	switch {
	case err != nil:
		return err
	case group == "" || found:
		return nil
	case numeric:
		id.GID = number
		return nil
	}
	return fmt.Errorf("unable to find group %s: no matching entries in group file", group)
}

// owner is who gets files.
type owner struct{ uid, gid uint32 }

// lookupOwner finds whom spec, as in --chown or for a WORKDIR in USER, names.
// BuildKit's rules differ from those of lookupUser: a number is not looked up
// and stands for the group too. A user that the stage does not know is root,
// and a group that it does not know is the user's; unknown tells them, as
// "user app".
func lookupOwner(root int, spec string) (o owner, unknown []string, err error) {
	user, group, _ := strings.Cut(spec, ":")
	o, known, err := ownerOfUser(root, user)
	if err != nil {
		return o, nil, err
	}
	if !known && user != "" {
		unknown = append(unknown, "user "+user)
	}
	if group == "" {
		return o, unknown, nil
	}
	gid, known, err := groupID(root, group)
	if known {
		o.gid = gid
	} else {
		unknown = append(unknown, "group "+group)
	}
	return o, unknown, err
}

// ownerOfUser is a user with the group that files get with it.
func ownerOfUser(root int, user string) (o owner, known bool, err error) {
	number, numeric, err := parseID(user)
	switch {
	case err != nil:
		return o, false, fmt.Errorf("user %q: %w", user, err)
	case numeric:
		return owner{number, number}, true, nil
	case user == "root":
		return o, true, nil
	}
	err = eachEntry(root, "/etc/passwd", func(f []string) (more bool, err error) {
		if f[0] != user {
			return true, nil
		}
		known = true
		o.uid, o.gid, err = entryIDs(f)
		return false, err
	})
	return o, known, err
}

// groupID is the gid of a name or number.
func groupID(root int, group string) (gid uint32, known bool, err error) {
	number, numeric, err := parseID(group)
	switch {
	case err != nil:
		return 0, false, fmt.Errorf("group %q: %w", group, err)
	case numeric:
		return number, true, nil
	case group == "root":
		return 0, true, nil
	}
	err = eachEntry(root, "/etc/group", func(f []string) (bool, error) {
		if f[0] != group {
			return true, nil
		}
		n, ok, err := parseID(field(f, 2))
		if err != nil || !ok {
			return false, fmt.Errorf("group %q: invalid gid %q in group file", group, field(f, 2))
		}
		gid, known = n, true
		return false, nil
	})
	return gid, known, err
}

// tellUnknown tells the names that an image does not know: what is made is not
// theirs then, which nobody would see otherwise.
func (e Env) tellUnknown(what string, unknown []string) {
	if len(unknown) > 0 && e.Output != nil {
		e.Output(2, fmt.Appendf(nil, "warning: %s: the image has no %s\n", what, strings.Join(unknown, " and no ")))
	}
}

var errNotRegular = errors.New("not a regular file")

var errIDRange = errors.New("ids must be in range 0-2147483647")

// parseID reads a decimal uid or gid. What is no number at all is a name:
// numeric is false; a number that no id can have is an error.
func parseID(s string) (id uint32, numeric bool, err error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, false, errIDRange
	case err != nil:
		return 0, false, nil
	case n < 0 || n > maxID:
		return 0, false, errIDRange
	}
	return uint32(n), true, nil
}

// entryIDs reads uid and gid of a passwd entry.
func entryIDs(f []string) (uid, gid uint32, err error) {
	uid, ok, err := parseID(field(f, 2))
	if err != nil || !ok {
		return 0, 0, fmt.Errorf("user %q: invalid uid %q in passwd file", f[0], field(f, 2))
	}
	gid, ok, err = parseID(field(f, 3))
	if err != nil || !ok {
		return 0, 0, fmt.Errorf("user %q: invalid gid %q in passwd file", f[0], field(f, 3))
	}
	return uid, gid, nil
}

func field(f []string, i int) string {
	if i < len(f) {
		return f[i]
	}
	return ""
}

// eachEntry calls fn with the fields of each line of a passwd or group file
// below root until it returns false. A file that is not there has no entries.
func eachEntry(root int, name string, fn func(fields []string) (more bool, err error)) error {
	f, err := openRegular(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// One byte more than allowed, to see that there is more.
	limit := &io.LimitedReader{R: f, N: maxUserFile + 1}
	s := bufio.NewScanner(limit)
	s.Buffer(make([]byte, 0, 4096), maxUserFile+1)
	for s.Scan() {
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		if more, err := fn(strings.Split(string(line), ":")); err != nil || !more {
			return err
		}
	}
	if limit.N == 0 {
		return fmt.Errorf("%s exceeds %d bytes", name, maxUserFile)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// openRegular opens a regular file below root for reading. It never blocks, as
// opening a FIFO could, and never touches a device.
func openRegular(root int, name string) (*os.File, error) {
	at, err := beneath.Resolve(root, name)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	switch {
	case len(at.Rest) > 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.ENOENT}
	case at.Leaf == "":
		return nil, &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.FD, at.Leaf, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := beneath.Openat(at.FD, at.Leaf, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
