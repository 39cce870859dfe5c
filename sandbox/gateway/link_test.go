package gateway

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// TestLinkKilled: after kill -9 of the launcher nothing is left of a link: no
// process, and so no namespace and no interface.
func TestLinkKilled(t *testing.T) {
	busybox(t)
	before := interfaces(t)
	for _, who := range everybody {
		t.Run(who.name, func(t *testing.T) {
			cmd := launchCommand(t, who, job{Command: []string{"/bin/busybox", "sleep", "1000"}, Hold: true})
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				_ = cmd.Wait()
				t.Skipf("no namespaces here: %v", err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			must(t, err)
			ns, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
			if os.Geteuid() == 0 {
				must(t, err)
			}
			must(t, cmd.Process.Signal(syscall.SIGKILL))
			_ = cmd.Wait()
			until(t, "its command ends", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
			if ns == "" {
				return
			}
			// The kernel gives its number to the next one, which may be another test's.
			until(t, "its namespace "+ns+" is gone", func() bool {
				all, err := exec.Command("lsns", "-t", "net", "-n", "-o", "NS").Output()
				return err != nil || !strings.Contains(string(all), strings.Trim(ns, "net:[]"))
			})
		})
	}
	if after := interfaces(t); after != before {
		t.Errorf("the host had the interfaces %s, and has %s", before, after)
	}
}

func interfaces(t *testing.T) (names string) {
	t.Helper()
	list, err := net.Interfaces()
	must(t, err)
	for _, i := range list {
		names += i.Name + " "
	}
	return names
}

// TestLinkLauncherGone: a launcher that gives up before Go starts nothing.
func TestLinkLauncherGone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	mark := filepath.Join(t.TempDir(), "ran")
	cmd := exec.Command("/bin/busybox", "touch", mark)
	start, err := Through(cmd, testSelf)
	must(t, err)
	must(t, cmd.Start())
	link, err := start.Link()
	must(t, err)
	link.Close()
	start.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("the first stage succeeded")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the command ran")
	}
}
