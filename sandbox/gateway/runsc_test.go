package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// busybox is a static one.
func busybox(t testing.TB) string {
	t.Helper()
	p, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	return p
}

// runsc is the one of KBUILD_RUNSC, or that in bin.
func runscProgram(t testing.TB) string {
	t.Helper()
	p := os.Getenv("KBUILD_RUNSC")
	if p == "" {
		p = filepath.Join("..", "..", "bin", "runsc")
	}
	p, err := filepath.Abs(p)
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil {
		t.Skipf("needs runsc, see KBUILD_RUNSC: %v", err)
	}
	return p
}

// inSandbox is the job that runs a shell script in a real sandbox.
func inSandbox(t testing.TB, who as, script string) job {
	t.Helper()
	if os.Geteuid() != 0 && who.uid == 0 {
		t.Skip("needs root")
	}
	dir := openDir(t)
	bundle, root, state := filepath.Join(dir, "bundle"), filepath.Join(dir, "bundle", "rootfs"), filepath.Join(dir, "state")
	for _, d := range []string{"bin", "etc", "proc", "tmp", "dev", "sys"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	must(t, os.Mkdir(state, 0o700))
	if os.Geteuid() == 0 {
		must(t, os.Chown(state, who.uid, who.uid))
	}
	b, err := os.ReadFile(busybox(t))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin", "busybox"), b, 0o755))
	for _, name := range []string{"sh", "wget", "ping", "nslookup", "nc", "sha256sum", "cat", "grep", "sleep", "seq", "ip"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	must(t, os.WriteFile(filepath.Join(root, "etc", "resolv.conf"), SandboxResolvConf(nil), 0o644))
	config, err := json.Marshal(spec(who, script))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644))
	// What a sandbox of the launcher has, but for the filter and the channel.
	return job{Command: []string{runscProgram(t), "--root=" + state, "--platform=systrap", "--rootless=false", "--ignore-cgroups",
		"--network=sandbox", "--gso=false", "--software-gso=false", "--tx-checksum-offload=true", "--gofer-network-namespace=new",
		fmt.Sprintf("--directfs=%v", who.uid != 0), "--overlay2=none", "--net-raw=true", "--host-uds=none",
		"run", "--bundle=" + bundle, "test"}}
}

func spec(who as, script string) map[string]any {
	namespaces := []map[string]any{
		{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
		{"type": "network", "path": "/proc/self/ns/net"},
	}
	caps := []string{"CAP_NET_RAW"}
	linux := map[string]any{}
	if who.uid == 0 {
		namespaces = append(namespaces, map[string]any{"type": "user"})
		ids := []map[string]any{{"containerID": 0, "hostID": 65534, "size": 1}, {"containerID": 1, "hostID": 0, "size": 65534}}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
	}
	linux["namespaces"] = namespaces
	return map[string]any{
		"ociVersion": "1.0.0", "hostname": "box",
		"root": map[string]any{"path": "rootfs", "readonly": true},
		"process": map[string]any{
			"args": []string{"/bin/sh", "-c", script}, "cwd": "/", "env": []string{"PATH=/bin"},
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"mounts": []map[string]any{{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}},
		"linux":  linux,
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// webServer serves a small page and a large file, and says what the latter sums
// up to.
func webServer(t testing.TB, at string, size int) (netip.AddrPort, string) {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(data)
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "large", time.Time{}, bytes.NewReader(data))
	})
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Skipf("this machine cannot listen on %s: %v", at, err)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort(), fmt.Sprintf("%x", sha256.Sum256(data))
}

// TestRunsc has real gVisor at the other end.
func TestRunsc(t *testing.T) {
	own := hostAddress(t)
	web, sum := webServer(t, netip.AddrPortFrom(own, 0).String(), 100<<20)
	loop, _ := webServer(t, "127.0.0.1:0", 1)
	loop6, _ := webServer(t, "[::1]:0", 1)
	names := nameServer(t, map[string][]string{
		"web.example.": {own.String()}, "bad.example.": {"10.9.9.9", "169.254.169.254", "fd00:ec2::254"}, "mixed.example.": {"10.9.9.9", own.String()},
	})
	script := fmt.Sprintf(`
		t() { want=$1; shift; out=$("$@" 2>&1); s=$?; case $want$s in ok0|no1) echo "pass $want $*";; *) echo "FAIL $want $* = $s: $out";; esac; }
		t ok wget -q -O /dev/null http://%[1]s/hello
		t ok wget -q -O /dev/null http://192.0.0.1:%[2]d/hello
		t ok wget -q -O /dev/null "http://[fd6b:6275:696c:6400::1]:%[3]d/hello"
		t ok wget -q -O /dev/null http://web.example:%[4]d/hello
		t ok wget -q -O /dev/null http://mixed.example:%[4]d/hello
		t no wget -q -O /dev/null http://bad.example/
		t no wget -q -O /dev/null http://192.0.0.1:1/
		for a in 10.1.2.3 127.0.0.1 169.254.169.254 169.254.1.1 192.168.1.1 172.16.0.1 100.64.0.1 '[fd00:ec2::254]' '[::1]' '[fe80::1]' '[64:ff9b::10.1.2.3]' '[::ffff:10.1.2.3]'; do
			t no wget -q -O /dev/null http://$a/
		done
		t ok ping -c 1 -W 5 192.0.0.1
		t ok ping -c 1 -W 5 fd6b:6275:696c:6400::1
		t PING ping -c 2 -W 5 %[5]s
		t no ping -c 1 -W 2 10.1.2.3
		t no ping -c 1 -W 2 fd00::1
		n=0; for i in $(seq 200); do wget -q -O - http://%[1]s/hello >/dev/null && n=$((n+1)); done; echo "short $n"
		echo "sum $(wget -q -O - http://%[1]s/large | sha256sum)"
		ip addr
		`, web, loop.Port(), loop6.Port(), web.Port(), own)
	for _, who := range everybody {
		t.Run(who.name, func(t *testing.T) {
			ping := "ok"
			if who.uid != 0 && !mayPing(t, who.uid) {
				ping = "no"
			}
			j := inSandbox(t, who, strings.ReplaceAll(script, "PING", ping))
			j.Allow, j.Resolver = []string{own.String(), loop.String(), loop6.String()}, names.String()
			out := launch(t, who, j)
			t.Logf("%v: %+v\n%s", out.Took, out.Counters, out.Output)
			checkRun(t, out, sum)
		})
	}
}

// mayPing tells whether the machine lets this user open ping sockets.
func mayPing(t *testing.T, gid int) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range")
	must(t, err)
	var from, to int
	_, err = fmt.Sscan(string(b), &from, &to)
	must(t, err)
	return from <= gid && gid <= to
}

func checkRun(t *testing.T, out outcome, sum string) {
	t.Helper()
	if out.Status != 0 || strings.Contains(out.Output, "FAIL") {
		t.Errorf("status %d", out.Status)
	}
	for _, want := range []string{"short 200\n", "sum " + sum} {
		if !strings.Contains(out.Output, want) {
			t.Errorf("no %q", want)
		}
	}
	if c := out.Counters; c.Flows != c.Records || int(c.Records) != len(out.Records) || c.Shed+c.Strays > 0 {
		t.Errorf("%+v with %d records", c, len(out.Records))
	}
	count := map[string]int{}
	for _, r := range out.Records {
		count[r.Protocol+" "+string(r.Verdict)]++
		if r.Verdict == Allowed && r.Protocol != ProtocolDNS && r.Reason != "allow rule" {
			t.Errorf("%+v", r)
		}
	}
	t.Log(count)
}

// TestRunscKilled: after kill -9 of the launcher no process of gVisor is left.
func TestRunscKilled(t *testing.T) {
	for _, who := range everybody {
		t.Run(who.name, func(t *testing.T) {
			j := inSandbox(t, who, "sleep 1000")
			j.Hold = true
			state := j.Command[1]
			cmd := launchCommand(t, who, j)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				_ = cmd.Wait()
				t.Skipf("no namespaces here: %v", err)
			}
			until(t, "sentry and gofer", func() bool { return processes(t, state) >= 3 })
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			until(t, "its processes end", func() bool { return processes(t, state) == 0 })
		})
	}
}

// processes counts those with an argument.
func processes(t *testing.T, arg string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("\x00"+arg+"\x00")) {
			n++
		}
	}
	return n
}
