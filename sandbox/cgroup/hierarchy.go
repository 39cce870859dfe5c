package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hierarchy is one tree of groups.
type hierarchy struct {
	v2 bool
	// controllers are those that the tree has; of v2: at its top.
	controllers []string
	top         string // directory of the topmost group that can be seen
	own         string // directory of the caller's group
}

// hierarchies are the trees that this process can see.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroup: %w", err)
	}
	list := parse(string(mounts), string(groups))
	for i, h := range list {
		if h.v2 {
			list[i].controllers, err = words(h.top, "cgroup.controllers")
			if err != nil {
				return nil, fmt.Errorf("read controllers: %w", err)
			}
		}
	}
	return list, nil
}

// parse makes hierarchies of /proc/self/mountinfo and /proc/self/cgroup, see
// proc(5) and cgroups(7). What cannot be reached from this mount namespace is
// left out. The controllers of v2 stand elsewhere.
func parse(mounts, groups string) []hierarchy {
	paths := map[string]string{} // controllers after commas -> path; "" is v2
	for line := range strings.Lines(groups) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			paths[f[1]] = f[2]
		}
	}
	var list []hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mounts) {
		head, tail, ok := strings.Cut(line, " - ")
		at, fs := strings.Fields(head), strings.Fields(tail)
		if !ok || len(at) < 5 || len(fs) < 3 || fs[0] != "cgroup" && fs[0] != "cgroup2" {
			continue
		}
		h := hierarchy{v2: fs[0] == "cgroup2", top: unescape(at[4])}
		key := ""
		if !h.v2 {
			key = controllersOf(fs[2], paths)
			h.controllers = strings.Split(key, ",")
		}
		path, known := paths[key]
		if !known || seen[key] {
			continue
		}
		rel, err := filepath.Rel(unescape(at[3]), path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || strings.HasPrefix(path, "/..") {
			continue // this mount shows another part of the tree
		}
		seen[key] = true
		h.own = filepath.Join(h.top, rel)
		list = append(list, h)
	}
	return list
}

// controllersOf finds the key of paths whose controllers are all among the
// options of a mount.
func controllersOf(options string, paths map[string]string) string {
	have := strings.Split(options, ",")
	for key := range paths {
		if key != "" && len(missing(strings.Split(key, ","), have)) == 0 {
			return key
		}
	}
	return "none"
}

// unescape undoes the escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// words reads a file of a group.
func words(dir, file string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(b)), err
}

// write writes a file of a group that is there.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// having is the hierarchy with a controller, v1 before v2: the kernel has a
// controller in one of them only.
func having(list []hierarchy, controller string) *hierarchy {
	i := slices.IndexFunc(list, func(h hierarchy) bool { return slices.Contains(h.controllers, controller) })
	if i < 0 {
		return nil
	}
	return &list[i]
}
