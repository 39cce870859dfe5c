package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Try tries an attack: its outcome, and what the oracles have found.
func (s *Site) Try(t testing.TB, a Attack) (Outcome, []string) {
	t.Helper()
	target := s.Target(t, a.ID)
	var outcome Outcome
	switch {
	case a.Run != nil:
		outcome = a.Run(target)
	default:
		outcome = target.stepOutcome(a)
	}
	return outcome, target.findings
}

// Target makes the directory of an attack, with its canaries.
func (s *Site) Target(t testing.TB, id int) *Target {
	t.Helper()
	dir, err := os.MkdirTemp(s.Dir, fmt.Sprintf("%03d-", id))
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	target := &Target{TB: t, Site: s, ID: id, Dir: dir, Nonce: "nonce-" + random()}
	for name, mode := range map[string]os.FileMode{
		"canary": 0o644, "etc/canary": 0o644, "etc/passwd": 0o644, "ctx.canary": 0o600, "home/canary": 0o600, "home/.ssh/id_rsa": 0o600,
		"home/.netrc": 0o600, "etc/shadow": 0o600, "bin/tool": 0o755, "out.canary": 0o666,
	} {
		put(t, filepath.Join(dir, name), s.Word+"\n", mode)
	}
	put(t, filepath.Join(dir, "home", ".docker", "config.json"), string(s.dockerConfig()), 0o600)
	for _, d := range []string{"ctx", "tmp", "out"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	target.chown(dir)
	return target
}
