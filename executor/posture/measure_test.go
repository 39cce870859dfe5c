package posture

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy/filter"
)

func TestMain(m *testing.M) { insandbox.Run(m, insandbox.Config{NoSeccomp: true}) }

func TestMeasure(t *testing.T) {
	p, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", p)
	if !p.GVisor || !strings.Contains(p.Kernel, "gvisor") || p.Seccomp != 0 || p.InUserns || p.NoNewPrivs || p.UID != 0 || p.PID != 1 || p.Processes != 0 {
		t.Errorf("%+v", p)
	}
	mask, err := policy.CapabilityMask(policy.ExecutorCapabilities())
	if err != nil {
		t.Fatal(err)
	}
	c := p.Capabilities
	for _, set := range []string{c.Permitted, c.Effective, c.Bounding} {
		if set != hex16(mask) {
			t.Errorf("capabilities %+v", c)
		}
	}
	if none := hex16(0); c.Inheritable != none || c.Ambient != none {
		t.Errorf("capabilities %+v", c)
	}
	for _, m := range []request.Mounted{{Target: "/", Type: "9p"}, {Target: "/src", Type: "9p"}, {Target: insandbox.Workspace, Type: "tmpfs", Writable: true}} {
		if !slices.Contains(p.Mounts, m) {
			t.Errorf("%+v is not among %+v", m, p.Mounts)
		}
	}
	if len(p.Network.Interfaces)+len(p.Network.Gateways) > 0 {
		t.Errorf("network %+v", p.Network)
	}
}

func hex16(n uint64) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 16)
	for i := range out {
		out[15-i] = digits[n>>(4*i)&15]
	}
	return string(out)
}

// What changes is seen: another file, a writable mount over the program, an
// ambient capability.
func TestMeasureSees(t *testing.T) {
	before, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create("/tmp/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Mount("none", "/tmp", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount("/tmp", unix.MNT_DETACH)
	after, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Mounts) != len(before.Mounts)+1 {
		t.Errorf("mounts: %+v", after.Mounts)
	}
	if len(after.Files) != len(before.Files)+1 {
		t.Errorf("files: %q, before %q", after.Files, before.Files)
	}
}

// Without a filter each of the calls fails otherwise than with EPERM, behind the
// executor's every one fails with it.
func TestDenied(t *testing.T) {
	if got := denied(); len(got) > 0 {
		t.Errorf("without a filter %q are taken for stopped", got)
	}
	done := make(chan []string)
	go func() {
		// Never unlocked: the filter stays with the thread. That may be the first
		// one, which /proc/self tells about, so this test is the last.
		runtime.LockOSThread()
		if err := filter.Load(policy.ExecutorTable()); err != nil {
			t.Error(err)
		}
		done <- denied()
	}()
	if got := <-done; !slices.Equal(got, policy.ExecutorDenies()) {
		t.Errorf("stopped: %q, want %q", got, policy.ExecutorDenies())
	}
}
