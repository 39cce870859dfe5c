package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// The build that a pod runs. Its RUN steps look for the executor and for the
// secret, and replace a directory, which takes an opaque mark.
const podDockerfile = `FROM %[1]s/library/busybox:1
RUN mkdir -p /d/e && touch /d/old
RUN rm -rf /d && mkdir /d && touch /d/new && chown 100000:200000 /d/new
RUN ls /kaniko /proc/*/root/kaniko 2>&1 | grep -v 'No such file' >/seen; \
    find / -xdev -name 'executor*' >>/seen; \
    find / -xdev -name config.json >>/seen; \
    grep -rl '%[2]s' /proc/*/environ /etc /run /tmp /dev/shm 2>/dev/null >>/seen; \
    tr '\0' '\n' </proc/1/environ | grep -i -e docker -e ssl >>/seen; \
    readlink /proc/1/exe >/exe; true
RUN grep -e CapEff -e Seccomp: -e NoNewPrivs /proc/self/status >/status; \
    mount -t tmpfs none /mnt 2>/dev/null && echo mounted >>/status; \
    unshare -U true 2>/dev/null && echo unshared >>/status; true
ADD nodes.tar /nodes/
`

// TestPod runs the product's own image with plain runsc, from a bundle such as
// containerd writes for a pod: Docker's capabilities and no other, a secret at
// /kaniko/.docker, no launcher.
func TestPod(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("runsc wants root here, as containerd is")
	}
	p := newPod(t)
	out, err := p.run("--destination", p.registry.Addr+"/team/app:1", "--work-dir", "/work",
		"--digest-file", "/out/digest", "--oci-layout-path", "/out/image")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	img := p.pushed(t, "team/app:1")
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(p.out, "digest")); err != nil || string(b) != h.String() {
		t.Errorf("digest file has %q, %v; want %s", b, err, h)
	}
	flattened, err := flat.Read(img)
	if err != nil {
		t.Fatal(err)
	}
	p.check(t, flattened.Tree.Entries(flat.Options{}))
}

// TestPodRefuses: what has to hold before a pod builds anything.
func TestPodRefuses(t *testing.T) {
	bin := binaries(t)
	context := t.TempDir()
	put(t, filepath.Join(context, "Dockerfile"), "FROM scratch\n")
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--context", context, "--no-push"}, "isolation is not in force: gVisor", 125},
		{[]string{"--cache", "--no-push"}, "--cache: not supported", 2},
		{[]string{}, "you must provide --destination, or use --no-push", 2},
	} {
		cmd := exec.Command(filepath.Join(bin, "kbuild-executor"), c.args...)
		out, err := cmd.CombinedOutput()
		code := cmd.ProcessState.ExitCode()
		if err == nil || !strings.Contains(string(out), c.want) || code != c.code {
			t.Errorf("%q: %v\n%s\nwant %q and %d", c.args, err, out, c.want, c.code)
		}
	}
}

// pod is a bundle with what it mounts.
type pod struct {
	runsc, state, bundle string
	out                  string
	registry             *registrytest.Registry
}

func newPod(t *testing.T) *pod {
	bin := binaries(t)
	dir := t.TempDir()
	p := &pod{
		runsc: filepath.Join(bin, "runsc"), bundle: filepath.Join(dir, "b"), out: filepath.Join(dir, "out"),
		registry: registrytest.Start(t, registrytest.Options{Auth: true}),
	}
	var err error
	if p.state, err = os.MkdirTemp("", "pod"); err != nil { // short: it holds a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.state) })
	busybox, err := rig.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(p.ref(t, "library/busybox:1"), busybox, credential()); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	do(t, "../deploy/build.sh", image)
	do(t, "umoci", "unpack", "--image", image+":latest", p.bundle)
	context, secret := filepath.Join(dir, "context"), filepath.Join(dir, "secret")
	for _, d := range []string{context, secret, p.out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	auth := base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + registrytest.Password))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, p.registry.Addr, auth)
	put(t, filepath.Join(secret, "config.json"), config)
	put(t, filepath.Join(context, "Dockerfile"), fmt.Sprintf(podDockerfile, p.registry.Addr, auth))
	do(t, "sh", "-c", `cd "$1" && mkdir n && mknod n/null c 1 3 && mkfifo n/pipe && tar cf nodes.tar -C n . && rm -r n`, "sh", context)
	p.spec(t, []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		{Destination: "/work", Type: "tmpfs", Source: "tmpfs"}, // an emptyDir, as gVisor's shim has it
		{Destination: "/workspace", Type: "bind", Source: context, Options: []string{"ro"}},
		{Destination: "/kaniko/.docker", Type: "bind", Source: secret, Options: []string{"ro"}},
		{Destination: "/out", Type: "bind", Source: p.out, Options: []string{"rw"}},
	})
	return p
}

// spec turns umoci's config.json into that of a pod.
func (p *pod) spec(t *testing.T, mounts []specs.Mount) {
	var s specs.Spec
	file := filepath.Join(p.bundle, "config.json")
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	caps := strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID
		CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE`)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Process.User = specs.User{}
	s.Process.Terminal = false
	s.Process.NoNewPrivileges = false
	s.Mounts = mounts
	s.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}}}
	b, err = json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, string(b))
}

func (p *pod) run(args ...string) ([]byte, error) {
	file := filepath.Join(p.bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	s.Process.Args = append([]string{"/kaniko/executor"}, args...)
	if b, err = json.Marshal(s); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(p.runsc, "--root="+p.state, "--network=host", "--net-raw", "--ignore-cgroups", "run", "--bundle="+p.bundle, "pod")
	// runsc pins an empty network namespace by a mount: not among the host's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.Bytes(), err
}

func (p *pod) ref(t *testing.T, path string) name.Reference {
	ref, err := name.ParseReference(p.registry.Addr+"/"+path, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (p *pod) pushed(t *testing.T, path string) v1.Image {
	img, err := remote.Image(p.ref(t, path), credential())
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// check looks at what the RUN steps found and at the layers' exactness.
func (p *pod) check(t *testing.T, entries map[string]flat.Entry) {
	if got := entries["/seen"].Text; got != "" {
		t.Errorf("a RUN step found:\n%s", got)
	}
	if got := entries["/exe"].Text; !strings.HasPrefix(got, "/bin/") {
		t.Errorf("process 1 of a RUN step is %q, want the command", got)
	}
	want := "NoNewPrivs:\t0\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n"
	got := entries["/status"].Text
	for _, line := range strings.SplitAfter(want, "\n") {
		if !strings.Contains(got, line) && !strings.HasPrefix(line, "NoNew") {
			t.Errorf("a RUN step has\n%s, want %q", got, line)
		}
	}
	if strings.Contains(got, "mounted") || strings.Contains(got, "unshared") {
		t.Errorf("a RUN step could do too much:\n%s", got)
	}
	if e := entries["/d/new"]; e.UID != 100000 || e.GID != 200000 {
		t.Errorf("/d/new belongs to %d:%d", e.UID, e.GID)
	}
	for path, want := range map[string]string{
		"/d/new": "file", "/d/old": "", "/d/e": "", "/nodes/null": "char", "/nodes/pipe": "fifo", "/work": "", "/w": "",
	} {
		if got := entries[path].Type; got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

func credential() remote.Option {
	return remote.WithAuth(&authn.Basic{Username: registrytest.User, Password: registrytest.Password})
}

func put(t *testing.T, file, data string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
