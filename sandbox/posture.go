package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// walls are what the launcher has promised for one sandbox, and has to find.
type walls struct {
	role     request.Role
	mode     mode
	pid      int // of runsc, which has started the others
	directfs bool
	dir      string // the run's own
	state    string // runsc's --root
	// files and what lies in work and debug are files of the host that gVisor may
	// have open for writing.
	files   []string
	work    string
	debug   string // or ""
	flags   runsc.Flags
	spec    *specs.Spec
	gvisor  string // version of the runsc that was found
	version string // the launcher's own
	// digest is that of the program that is meant to run, as it is on the host.
	digest func() (string, error)
	hold   *hold // nil: no limits from outside
}

// newWalls are those of a sandbox that is started by this spec with these flags.
func newWalls(c Config, l layout, m mode, s *specs.Spec, f runsc.Flags) walls {
	return walls{
		role: l.role, mode: m, directfs: f.Get("directfs") == "true",
		dir: l.dir, state: l.state, files: []string{l.log, l.panics}, work: l.work, debug: f.Get("debug-log"),
		flags: f, spec: s, gvisor: c.Runsc.Version.Text, version: c.Version, digest: c.executorDigest(), hold: c.hold,
	}
}

// uid is who gVisor's processes are on the host.
func (w walls) uid() (uid, gid int) {
	if w.mode == modeRoot {
		return nobody, nobody
	}
	return os.Geteuid(), os.Getegid()
}

// check compares what the executor measured inside with what was promised, and
// measures and compares the host's side. It must run before the sandbox has seen
// a byte of a tenant: what gVisor's processes show is believed.
func (w walls) check(inside request.Posture) (request.RolePosture, error) {
	p := request.RolePosture{Role: w.role, Inside: inside}
	digest, err := w.digest()
	if err != nil {
		return p, &WallError{Wall: "executor", Msg: "its program cannot be read", Err: err}
	}
	if err := w.verifyInside(inside, digest); err != nil {
		return p, err
	}
	// Which layers there are is no wall, and differs from build to build: that all of
	// them are read-only images has just been compared with the spec.
	p.Inside.Mounts = slices.DeleteFunc(slices.Clone(inside.Mounts), func(m request.Mounted) bool {
		return m.Type == layerType && strings.HasPrefix(string(m.Target), request.LayersPath+"/")
	})
	out, err := w.outside()
	p.Outside = &out
	return p, err
}

// executorDigest reads the executor once for all sandboxes of a run, see Run.
func (c Config) executorDigest() func() (string, error) {
	if c.digest != nil {
		return c.digest
	}
	return func() (string, error) { return fileDigest(c.Executor) }
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
