package git

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// keeper makes the .git of a worktree: the objects of the one commit, a detached
// HEAD, and the index that git status needs. No hooks are in it.
type keeper struct {
	visit *visit
	// fd is the .git of the checkout, at is where in it this repository's files
	// lie: empty, or modules/name.
	fd int
	at string
	// place is the worktree's directory in the checkout; empty: that itself.
	place   string
	config  strings.Builder
	entries []indexed
	dirs    []string // that were made, in this order
}

// newKeeper makes the .git of the checkout in the directory dir.
func newKeeper(v *visit, dir int) (*keeper, error) {
	if err := unix.Mkdirat(dir, ".git", 0o755); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: ".git", Err: err}
	}
	fd, err := openDir(dir, ".git")
	return &keeper{visit: v, fd: fd}, err
}

// write writes all but what was told before.
func (k *keeper) write(f *found, u *url.URL) error {
	hash := f.pack.format.hex
	version, extensions := 0, ""
	if f.pack.format.name != "sha1" {
		version, extensions = 1, "[extensions]\n\tobjectformat = "+f.pack.format.name+"\n"
	}
	config := fmt.Sprintf("[core]\n\trepositoryformatversion = %d\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n", version)
	if k.at != "" {
		up := strings.Repeat("../", 2+strings.Count(k.at, "/"))
		config += "\tworktree = " + quoted(up+k.place) + "\n"
	}
	config += extensions + "[remote \"origin\"]\n\turl = " + quoted(shown(u)) + "\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
	files := map[string]string{
		"HEAD":         hash(f.commit) + "\n",
		"config":       config + k.config.String(),
		"description":  "Unnamed repository; edit this file 'description' to name the repository.\n",
		"info/exclude": "",
	}
	for _, name := range f.localRefs(k.visit.repo.Ref) {
		files[name] = hash(f.tip) + "\n"
	}
	if len(f.shallow) > 0 {
		files["shallow"] = strings.Join(f.shallow, "\n") + "\n"
	}
	for _, dir := range []string{"objects/info", "refs/heads", "refs/tags"} {
		if err := k.mkdir(path.Join(k.at, dir)); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := k.file(name, 0o644, func(w io.Writer) error { _, err := io.WriteString(w, data); return err }); err != nil {
			return err
		}
	}
	if err := k.objects(f.pack); err != nil {
		return err
	}
	for _, dir := range slices.Backward(k.dirs) {
		if err := k.visit.touch(k.fd, dir); err != nil {
			return err
		}
	}
	return k.visit.touch(k.fd, "")
}

func (k *keeper) objects(p *pack) error {
	name := "objects/pack/pack-" + p.format.hex(p.sum)
	return errors.Join(
		k.file(name+".pack", 0o444, func(w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(p.file, 0, p.size))
			return err
		}),
		k.file(name+".idx", 0o444, p.writePackIndex),
		k.file("index", 0o644, func(w io.Writer) error { return writeIndex(w, p.format, k.entries) }),
	)
}

// localRefs are the refs that BuildKit's .git has: the user's name for the tip
// as a branch, and as a tag, which is what git describe looks for.
func (f *found) localRefs(asked string) []string {
	short := strings.TrimPrefix(f.name, "refs/heads/")
	if asked != "" {
		short = asked
	}
	var names []string
	switch {
	case f.name == "":
		return nil
	case f.tip != f.commit:
		names = []string{"refs/tags/" + strings.TrimPrefix(short, "refs/tags/")}
	case strings.HasPrefix(short, "refs/tags/"):
		names = []string{short}
	default:
		branch := short
		switch {
		case strings.HasPrefix(short, "refs/"):
		case strings.HasPrefix(short, "heads/"), strings.HasPrefix(short, "tags/"):
			branch = "refs/" + short
		default:
			branch = "refs/heads/" + short
		}
		names = []string{branch, "refs/tags/" + short}
	}
	return slices.DeleteFunc(names, func(name string) bool { return !validRef(name) })
}

// validRef keeps names out that git has not, and that would lead elsewhere
// (git-check-ref-format).
func validRef(name string) bool {
	if strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.HasSuffix(name, ".") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
}

// quoted is a value of git's configuration.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// mkdir makes a directory in .git with those above it, if they are not there.
// Nothing in .git is a link: only this code writes there.
func (k *keeper) mkdir(dir string) error {
	done := ""
	for part := range strings.SplitSeq(dir, "/") {
		done = path.Join(done, part)
		err := unix.Mkdirat(k.fd, done, 0o755)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: ".git/" + done, Err: err}
		}
		if err == nil {
			k.dirs = append(k.dirs, done)
		}
	}
	return nil
}

// file makes a file of this repository.
func (k *keeper) file(name string, perm uint32, fill func(io.Writer) error) error {
	name = path.Join(k.at, name)
	if dir := path.Dir(name); dir != "." {
		if err := k.mkdir(dir); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(k.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return &os.PathError{Op: "create", Path: ".git/" + name, Err: err}
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if err := errors.Join(fill(file), unix.Fchmod(fd, perm), k.visit.touch(fd, "")); err != nil {
		return fmt.Errorf(".git/%s: %w", name, err)
	}
	return file.Close()
}
