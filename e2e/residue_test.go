package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// minKinds is how many kinds of leftovers there have to be at least.
const minKinds = 30

const residueDockerfile = `FROM scratch AS other
COPY residue /residue
FROM $BUSYBOX
COPY residue /residue
RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN --mount=type=ssh \
    --mount=type=tmpfs,target=/lent/tmpfs --mount=type=bind,rw,target=/lent/context \
    --mount=type=bind,rw,from=other,target=/lent/stage \
    /residue leave
RUN /residue look
`

// TestResidue: nothing of what a RUN step leaves behind, but for its files, is
// there in the next one.
func TestResidue(t *testing.T) {
	bin := binaries(t)
	dir, context := t.TempDir(), t.TempDir()
	program := exec.Command("go", "build", "-o", filepath.Join(context, "residue"), "./residue")
	program.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := program.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	registry, err := rig.StartRegistry(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Stop()
	pushBases(t.Context(), t, registry)
	text := regexp.MustCompile(`\$BUSYBOX`).ReplaceAllString(residueDockerfile, registry.Host+"/library/busybox:1")
	put(t, filepath.Join(context, "Dockerfile"), text)
	// ssh-agent sets SSH_AUTH_SOCK and ends with the command that it starts.
	cmd := exec.Command("ssh-agent", filepath.Join(bin, "kbuild-sandbox"), "build", "--no-push", "--insecure-registry", registry.Host,
		"--secret", "id=token,env=RESIDUE_TOKEN", "--ssh", "default", "--cache-dir", filepath.Join(dir, "cache"), "--progress", "plain", context)
	cmd.Env = append(os.Environ(), "RESIDUE_TOKEN=residue-canary")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("residue-canary")) {
		t.Error("the output shows the secret")
	}
	summary := regexp.MustCompile(`(\d+) kinds, 0 found`).FindSubmatch(out)
	if summary == nil {
		t.Fatalf("no summary:\n%s", out)
	}
	if n, _ := strconv.Atoi(string(summary[1])); n < minKinds {
		t.Errorf("%d kinds, want %d or more", n, minKinds)
	}
	t.Logf("%s\n", summary[0])
}
