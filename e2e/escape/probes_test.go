package escape

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// escapes are probes that find what they look for where no wall stands: run by
// root outside of any sandbox, in namespaces where they harm nobody. Those that
// would overwrite programs or settings of the host are not among them.
var escapes = []struct {
	name   string
	args   []string
	spaces uintptr
}{
	{"descriptors", []string{"fds"}, 0},
	{"kinds of filesystems", []string{"proc", "/absent"}, 0},
	{"other processes", []string{"alone"}, 0},
	{"objects of others", []string{"steal"}, syscall.CLONE_NEWIPC},
	{"mounts", []string{"detach"}, syscall.CLONE_NEWNS},
	{"capabilities", []string{"caps"}, 0},
	{"groups", []string{"groups", "1000", "1000", "[1000]"}, 0},
	{"a file that can be read", []string{"negative", "/proc/self/exe"}, 0},
	{"user namespaces", []string{"userns"}, 0},
	{"listeners", []string{"sockets"}, 0},
	{"addresses", []string{"reach", "http://" + PublicIPv4 + "/hello", "ADDRESSES"}, 0},
	{"interfaces", []string{"nonetwork"}, 0},
	{"names", []string{"ask", "-public.test"}, 0},
	{"traffic", []string{"sniff", "from-another"}, 0},
}

// probesSee runs the probes where they must escape.
func probesSee(t *testing.T, site *Site) {
	target := site.Target(t, 0)
	canaries, _ := forbiddenEndpoints()
	addresses := filepath.Join(target.Dir, "out", "addresses")
	put(t, addresses, strings.Join(canaries, "\n"), 0o644)
	for _, e := range escapes {
		t.Run(e.name, func(t *testing.T) {
			cmd := exec.Command(site.Probe, "0")
			for _, a := range e.args {
				cmd.Args = append(cmd.Args, strings.Replace(a, "ADDRESSES", addresses, 1))
			}
			cmd.Env = append(os.Environ(), "NONCE="+target.Nonce)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: e.spaces}
			leaked, err := os.Open(target.Dir)
			must(t, err)
			defer leaked.Close()
			cmd.ExtraFiles = []*os.File{leaked}
			stop := others(t)
			out, err := cmd.CombinedOutput()
			stop()
			if err != nil || !strings.Contains(string(out), target.Nonce+" ESCAPED: ") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// others are what else is there while a probe looks: a file that a program of
// another holds, and its traffic.
func others(t *testing.T) (stop func()) {
	t.Helper()
	const held = "/dev/shm/held"
	put(t, held, "held", 0o644)
	talk := exec.Command("busybox", "sh", "-c", "while :; do echo from-another | busybox nc -w 1 127.0.0.1 80 >/dev/null; busybox sleep 0.1; done")
	must(t, talk.Start())
	return func() {
		_ = talk.Process.Kill()
		_ = talk.Wait()
		must(t, os.Remove(held))
	}
}
