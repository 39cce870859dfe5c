package git

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// maxGitmodules is the largest .gitmodules, in bytes.
const maxGitmodules = 1 << 20

// module is a submodule as .gitmodules has it.
type module struct {
	name string
	url  string
	skip bool // update = none
}

// modules reads .gitmodules of the tree i: by path. Without the file there are
// none.
func (p *pack) modules(i id) (map[string]module, error) {
	list, err := p.readTree(i)
	if err != nil {
		return nil, err
	}
	e, ok := lookup(list, ".gitmodules")
	if !ok || e.mode&modeType != modeFile {
		return nil, nil
	}
	data, err := p.read(e.id, blobKind)
	if err != nil {
		return nil, err
	}
	if len(data) > maxGitmodules {
		return nil, fmt.Errorf(".gitmodules has %d bytes", len(data))
	}
	return parseModules(string(data))
}

// parseModules reads .gitmodules, which has the form of git's configuration.
func parseModules(text string) (map[string]module, error) {
	byName := map[string]*module{}
	paths := map[string]string{} // by name
	err := parseConfig(text, func(section, name, key, value string) {
		if section != "submodule" || name == "" {
			return
		}
		m := byName[name]
		if m == nil {
			m = &module{name: name}
			byName[name] = m
		}
		switch key {
		case "path":
			paths[name] = value
		case "url":
			m.url = value
		case "update":
			m.skip = value == "none"
		}
	})
	if err != nil {
		return nil, fmt.Errorf(".gitmodules: %w", err)
	}
	out := map[string]module{}
	for name, m := range byName {
		if p := paths[name]; p != "" {
			out[path.Clean(p)] = *m
		}
	}
	return out, nil
}

// source is a repository of which files are written: the one that was asked for,
// or a submodule.
type source struct {
	*found
	url     *url.URL
	modules map[string]module
	depth   int // of submodules
}

// open fetches a repository.
func (v *visit) open(ctx context.Context, u *url.URL, r buildcontext.Repository, depth int) (*source, error) {
	f, err := v.fetch(ctx, u, r)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch remote %s: %w", shown(u), err)
	}
	s := &source{found: f, url: u, depth: depth}
	if s.modules, err = f.pack.modules(f.tree); err != nil {
		return nil, errors.Join(err, f.pack.close())
	}
	return s, nil
}

// openModule fetches the submodule at a path of s. It returns nil if the
// repository wants it left out.
func (v *visit) openModule(ctx context.Context, s *source, at string, commit id) (*source, module, error) {
	m, ok := s.modules[at]
	switch {
	case !ok || m.url == "":
		return nil, m, fmt.Errorf("no url found for submodule path %q in .gitmodules", at)
	case m.skip:
		return nil, m, nil
	case s.depth >= v.limits.depth:
		return nil, m, fmt.Errorf("submodules in more than %d submodules", v.limits.depth)
	}
	if v.modules++; v.modules > v.limits.modules {
		return nil, m, fmt.Errorf("more than %d submodules", v.limits.modules)
	}
	u, err := moduleAddress(s.url, m.url)
	if err != nil {
		return nil, m, fmt.Errorf("submodule %s: %w", m.name, err)
	}
	sub, err := v.open(ctx, u, buildcontext.Repository{Ref: s.pack.format.hex(commit)}, s.depth+1)
	if err != nil {
		return nil, m, fmt.Errorf("submodule %s: %w", m.name, err)
	}
	return sub, m, nil
}

// module fills the directory of the submodule e.
func (w *worktree) module(ctx context.Context, e entry, dir int, name string) error {
	if err := w.tell(name, e, dir, ""); err != nil || w.repo.NoSubmodules {
		return err
	}
	sub, m, err := w.openModule(ctx, w.src, name, e.id)
	if err != nil || sub == nil {
		return err
	}
	defer sub.pack.close()
	inner := &worktree{visit: w.visit, src: sub}
	if w.keep != nil {
		if inner.keep, err = w.keep.module(m, name, sub.url, dir); err != nil {
			return err
		}
	}
	return inner.write(ctx, sub.tree, folder{fd: dir})
}

// module makes the keeper of a submodule, whose files lie with those of the
// repository that has it, and the file that leads there from its directory.
func (k *keeper) module(m module, at string, u *url.URL, dir int) (*keeper, error) {
	if !validModule(m.name) {
		return nil, fmt.Errorf("invalid submodule name %q", m.name)
	}
	sub := &keeper{visit: k.visit, fd: k.fd, at: path.Join(k.at, "modules", m.name), place: path.Join(k.place, at)}
	fmt.Fprintf(&k.config, "[submodule %s]\n\tactive = true\n\turl = %s\n", quoted(m.name), quoted(shown(u)))
	up := strings.Repeat("../", 1+strings.Count(sub.place, "/"))
	fd, err := unix.Openat(dir, ".git", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path.Join(sub.place, ".git"), Err: err}
	}
	file := os.NewFile(uintptr(fd), ".git")
	_, err = fmt.Fprintf(file, "gitdir: %s.git/%s\n", up, sub.at)
	err = errors.Join(err, unix.Fchmod(fd, 0o644), k.visit.touch(fd, ""))
	return sub, errors.Join(err, file.Close())
}

// validModule says whether a submodule's name can be a path in .git.
func validModule(name string) bool {
	for part := range strings.FieldsFuncSeq(name+"/", func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == "." || part == ".." {
			return false
		}
	}
	return name != "" && name == path.Clean(name) && name[0] != '/' && !strings.ContainsAny(name, "\x00\n\r")
}
