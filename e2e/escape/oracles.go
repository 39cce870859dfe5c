package escape

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// snapshot is the host as it was before a build.
type snapshot struct {
	canaries map[string]string // the attack's directory
	host     map[string]string // /, /etc and the product's binaries
	hits     int
}

func (t *Target) snapshot() *snapshot {
	return &snapshot{canaries: t.canaryFiles(), host: t.hostFiles(), hits: len(t.Canaries.Hits())}
}

// changes says what of the host is not as it was before, a finding a line.
func (t *Target) changes(before *snapshot) []string {
	found := difference("canary", before.canaries, t.canaryFiles())
	found = append(found, difference("host", before.host, t.hostFiles())...)
	if hits := t.Canaries.Hits(); len(hits) > before.hits {
		found = append(found, "canary server: "+strings.Join(hits[before.hits:], "; "))
	}
	for _, p := range rig.Orphans() {
		if strings.Contains(p, t.Dir+"/tmp/") {
			found = append(found, "left running: "+p)
		}
	}
	for _, m := range rig.Mounts(t.Dir) {
		found = append(found, "left mounted: "+m)
	}
	return found
}

// canaryFiles are all files of the attack's directory but for its output.
func (t *Target) canaryFiles() map[string]string {
	return fingerprint(t.Dir, filepath.Join(t.Dir, "out"))
}

// hostFiles are those that an escape through an absolute path would hit.
func (t *Target) hostFiles() map[string]string {
	all := fingerprint("/etc")
	entries, _ := os.ReadDir("/")
	for _, e := range entries {
		all["/"+e.Name()] = e.Type().String()
	}
	for _, name := range []string{"kbuild-sandbox", "kbuild-executor", "runsc"} {
		file, err := filepath.EvalSymlinks(filepath.Join(t.Bin, name))
		if err != nil {
			file = filepath.Join(t.Bin, name)
		}
		info, err := os.Lstat(file)
		all[file] = describe(file, info, err)
	}
	return all
}

// fingerprint describes each file below dir.
func fingerprint(dir string, skip ...string) map[string]string {
	all := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if slices.Contains(skip, path) {
			return fs.SkipDir
		}
		if err != nil {
			all[path] = err.Error()
			return nil
		}
		info, err := d.Info()
		all[path] = describe(path, info, err)
		return nil
	})
	return all
}

// describe is type, mode, owner and content of a file, and when it was last
// changed in any way; of a directory not that, since a build may use $TMPDIR.
func describe(path string, info fs.FileInfo, err error) string {
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.IsDir() {
		return fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
	}
	text := fmt.Sprintf("%v %d:%d %d links %d bytes changed %v", info.Mode(), st.Uid, st.Gid, st.Nlink, st.Size, time.Unix(st.Ctim.Unix()))
	const most = 64 << 20 // of a larger file the time is enough
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		to, _ := os.Readlink(path)
		return text + " -> " + to
	case info.Mode().IsRegular() && info.Size() < most:
		b, err := os.ReadFile(path)
		return fmt.Sprintf("%s %x %v", text, sha256.Sum256(b), err)
	}
	return text
}

func difference(what string, before, after map[string]string) []string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(before)) {
		switch now, there := after[path]; {
		case !there:
			out = append(out, fmt.Sprintf("%s %s is gone", what, path))
		case now != before[path]:
			out = append(out, fmt.Sprintf("%s %s was %s and is %s", what, path, before[path], now))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if _, there := before[path]; !there {
			out = append(out, fmt.Sprintf("%s %s is new: %s", what, path, after[path]))
		}
	}
	return out
}
