package gateway

import (
	"strings"
	"testing"
)

// TestLink runs programs on the sandbox's side of a link, without gVisor: the
// namespace has what it should have, and nothing else.
func TestLink(t *testing.T) {
	busybox(t)
	for _, who := range everybody {
		t.Run(who.name, func(t *testing.T) {
			out := launch(t, who, job{Command: []string{"/bin/busybox", "sh", "-c",
				"busybox ip addr; busybox ip route; busybox ip -6 route; busybox ls /proc/self/fd; busybox ping -c1 192.0.0.1; busybox grep Cap /proc/self/status"}})
			t.Log(out.Output, out.Took)
			for _, want := range []string{
				"eth0@", "mtu 65000", "192.0.0.2/29", "fd6b:6275:696c:6400::2/64", "default via 192.0.0.1", "default via fd6b:6275:696c:6400::1",
				"1 packets received",
			} {
				if !strings.Contains(out.Output, want) {
					t.Errorf("no %q in %s", want, out.Output)
				}
			}
			for _, bad := range []string{farName, "fe80", "tentative"} {
				if strings.Contains(out.Output, bad) {
					t.Errorf("%q in %s", bad, out.Output)
				}
			}
		})
	}
}
