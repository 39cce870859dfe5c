package sandbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// verifyInside compares the executor's measurement with the spec that it was
// started by. digest is that of the program that was meant to run.
func (w walls) verifyInside(p request.Posture, digest string) error {
	fail := func(wall, msg string, args ...any) error {
		return &WallError{Wall: wall, Msg: "inside: " + fmt.Sprintf(msg, args...), Hint: doctorHint}
	}
	switch {
	case !p.GVisor:
		return fail("gVisor", "the executor finds the kernel %.80q", p.Kernel)
	case p.Seccomp != 2:
		return fail("seccomp", "the mode is %d instead of 2", p.Seccomp)
	case !slices.Equal(p.Denied, policy.ExecutorDenies()):
		return fail("seccomp", "of the system calls %q the filter stops %.200q", policy.ExecutorDenies(), p.Denied)
	case p.NoNewPrivs != w.spec.Process.NoNewPrivileges:
		return fail("no_new_privs", "it is %v", p.NoNewPrivs)
	case p.InUserns:
		return fail("user namespace", "it is not gVisor's first")
	case p.UID != 0 || p.GID != 0:
		return fail("user", "the executor is %d:%d instead of 0:0", p.UID, p.GID)
	case p.PID != 1 || p.Processes != 0:
		return fail("PID namespace", "the executor is process %d beside %d others", p.PID, p.Processes)
	case p.Executor != w.version:
		return fail("executor", "it is version %.80q, the launcher is %q", p.Executor, w.version)
	case p.Digest != digest:
		return fail("executor", "the program is %.80q instead of %s", p.Digest, digest)
	}
	if err := w.verifyCapabilities(p.Capabilities); err != nil {
		return err
	}
	if want := promisedMounts(w.spec); !slices.Equal(p.Mounts, want) {
		return fail("mounts", "%s", difference(p.Mounts, want))
	}
	if err := w.verifyNetwork(p.Network); err != nil {
		return err
	}
	return verifyInsideFiles(p.Files)
}

// verifyCapabilities: what the executor may have is what the spec says, in the
// sets that the spec says; exec would make anything else of the bounding set.
func (w walls) verifyCapabilities(c request.Capabilities) error {
	spec := w.spec.Process.Capabilities
	for _, set := range []struct {
		name, have string
		want       []string
	}{
		{"inheritable", c.Inheritable, spec.Inheritable}, {"permitted", c.Permitted, spec.Permitted},
		{"effective", c.Effective, spec.Effective}, {"bounding", c.Bounding, spec.Bounding}, {"ambient", c.Ambient, spec.Ambient},
	} {
		have, err := strconv.ParseUint(set.have, 16, 64)
		want, err2 := policy.CapabilityMask(set.want)
		if err != nil || err2 != nil || have != want {
			return &WallError{
				Wall: "capabilities", Hint: doctorHint,
				Msg: fmt.Sprintf("inside: the %s set is %.40q instead of %016x", set.name, set.have, want),
			}
		}
	}
	return nil
}

// promisedMounts are the spec's, as gVisor shows them: files of the host are of
// the type 9p whatever file system they are on.
func promisedMounts(s *specs.Spec) []request.Mounted {
	list := []request.Mounted{{Target: "/", Type: "9p", Writable: !s.Root.Readonly}}
	for _, m := range s.Mounts {
		kind := m.Type
		if kind == "bind" {
			kind = "9p"
			for name, value := range s.Annotations {
				if hint, ok := strings.CutSuffix(name, ".source"); ok && value == m.Source {
					kind = s.Annotations[hint+".type"]
				}
			}
		}
		if m.Destination == "/dev" {
			kind = "dev" // gVisor's own, with devpts in it
			list = append(list, request.Mounted{Target: "/dev/pts", Type: "devpts", Writable: true})
		}
		list = append(list, request.Mounted{
			Target: request.GuestPath(m.Destination), Type: kind, Writable: !slices.Contains(m.Options, "ro"),
		})
	}
	slices.SortStableFunc(list, func(a, b request.Mounted) int { return strings.Compare(string(a.Target), string(b.Target)) })
	return list
}

// difference names the first mount that is not as it should be.
func difference(have, want []request.Mounted) string {
	for _, m := range have {
		if !slices.Contains(want, m) {
			return fmt.Sprintf("%.100q of type %.20q, writable %v, was not promised", m.Target, m.Type, m.Writable)
		}
	}
	for _, m := range want {
		if !slices.Contains(have, m) {
			return fmt.Sprintf("%q of type %q, writable %v, is missing", m.Target, m.Type, m.Writable)
		}
	}
	return "one is there twice"
}

// verifyNetwork: where there is a network, it is the link to the gateway, and
// the gateway is the only way on.
func (w walls) verifyNetwork(n request.Connection) error {
	ends, ways := []netip.Addr{gateway.SandboxIPv4, gateway.SandboxIPv6}, []netip.Addr{gateway.GatewayIPv4, gateway.GatewayIPv6}
	problem := ""
	switch network := w.flags.Get("network"); {
	case network == "none" && (len(n.Interfaces) > 0 || len(n.Gateways) > 0):
		problem = "there is one where none was promised"
	case network == "none":
	case len(n.Interfaces) != 1:
		problem = fmt.Sprintf("there are %d interfaces instead of the gateway's", len(n.Interfaces))
	case !isLink(n.Interfaces[0].Addresses, ends) || !isLink(n.Gateways, ways):
		problem = fmt.Sprintf("it is not the gateway's: %.100q by %.100q", n.Interfaces[0].Addresses, n.Gateways)
	}
	if problem == "" {
		return nil
	}
	return &WallError{Wall: "network", Msg: "inside: " + problem, Hint: doctorHint}
}

// isLink tells whether addresses are those of one end of the link, that of IPv4
// in any case and that of IPv6 where this machine has it.
func isLink(have []string, want []netip.Addr) bool {
	for i, text := range have {
		addr, _, _ := strings.Cut(text, "/")
		if i >= len(want) || addr != want[i].String() {
			return false
		}
	}
	return len(have) > 0
}

// verifyInsideFiles: standard input, output and error, the channel, and what
// Go's runtime waits with.
func verifyInsideFiles(kinds []string) error {
	host := 0
	for _, k := range kinds {
		switch {
		case strings.HasPrefix(k, "anon_inode"):
		case k == "host", k == "socket", k == "pipe":
			host++
		default:
			return &WallError{Wall: "open files", Msg: fmt.Sprintf("inside: the executor has %.100q open", k), Hint: doctorHint}
		}
	}
	if host != 4 {
		return &WallError{Wall: "open files", Msg: fmt.Sprintf("inside: %d files of the host are open instead of 4", host), Hint: doctorHint}
	}
	return nil
}
