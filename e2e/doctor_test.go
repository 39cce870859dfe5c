package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denyEnv makes the test program load a filter that refuses the system calls
// with these numbers, and clone with CLONE_NEWUSER if unshare is among them, and
// then become its arguments: as the filter of a container around it would.
const denyEnv = "KBUILD_E2E_DENY"

func TestMain(m *testing.M) {
	if list := os.Getenv(denyEnv); list != "" {
		fmt.Fprintln(os.Stderr, denied(strings.Split(list, ","), os.Args[1:]))
		os.Exit(99)
	}
	os.Exit(m.Run())
}

// denied returns only if it fails.
func denied(numbers, args []string) error {
	const (
		errno = 0x00050000 | uint32(unix.EPERM)
		allow = 0x7fff0000
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	prog := []unix.SockFilter{{Code: load}}
	for _, text := range numbers {
		nr, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return err
		}
		prog = append(prog, unix.SockFilter{Code: equal, K: uint32(nr), Jf: 1}, unix.SockFilter{Code: ret, K: errno})
		if nr == unix.SYS_UNSHARE {
			prog = append(prog, unix.SockFilter{Code: equal, K: unix.SYS_CLONE, Jf: 4}, unix.SockFilter{Code: load, K: 16}, // the first argument
				unix.SockFilter{Code: bits, K: unix.CLONE_NEWUSER, Jf: 1}, unix.SockFilter{Code: ret, K: errno}, unix.SockFilter{Code: load})
		}
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: allow})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p))); e != 0 {
		return e
	}
	os.Unsetenv(denyEnv)
	return syscall.Exec(args[0], args, os.Environ())
}

// diagnosis is what doctor --json prints.
type diagnosis struct {
	OK     bool
	Checks []struct{ Name, Status, Found, Hint string }
	// Posture is there if a sandbox has really started.
	Posture       []struct{ Role string }
	PostureDigest string
}

// not are the names of the checks that are not ok, * behind those that warn.
func (d diagnosis) not() (names []string) {
	for _, c := range d.Checks {
		switch c.Status {
		case "missing":
			names = append(names, c.Name)
		case "warning":
			names = append(names, c.Name+"*")
		}
	}
	return names
}

// TestDoctor takes away one thing after another that a build needs, and wants
// doctor to name it, and to say what to do.
func TestDoctor(t *testing.T) {
	bin := asSomeone(t, binaries(t))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	doctor := filepath.Join(bin, "real", "kbuild-sandbox") + " doctor --json"
	user := fmt.Sprintf("setpriv --reuid %[1]d --regid %[1]d --clear-groups ", someone)
	numbers := func(nr ...int) string { return strings.Trim(fmt.Sprint(nr), "[]") }
	for _, tt := range []struct {
		name, shell string
		deny        []int
		want        string // names that have to be among those that are not ok; empty: all is ok
		hint        string // in one of their hints
	}{
		{"root", doctor, nil, "", ""},
		{"an ordinary user", user + doctor, nil, "", ""},
		{"Docker's capabilities", "setpriv --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap " + doctor, nil, "", ""},
		{"root without capabilities", "setpriv --bounding-set=-all " + doctor, nil, "new namespace", "CAP_SETFCAP"},
		{"no user namespace", "unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec " + doctor + "'", nil, "user namespaces", "max_user_namespaces"},
		{"one user namespace", "unshare -Ur sh -c 'echo 1 >/proc/sys/user/max_user_namespaces; exec " + doctor + "'", nil, "sandbox", ""},
		{"Docker's filter", user + doctor, []int{unix.SYS_UNSHARE}, "new namespace", "seccomp"},
		{"Docker's filter for root", "setpriv --bounding-set=-sys_admin " + doctor, []int{unix.SYS_UNSHARE}, "new namespace", "seccomp"},
		{"no ptrace", user + doctor, []int{unix.SYS_PTRACE}, "ptrace", "ptrace"},
		{"no mount", user + doctor, []int{unix.SYS_MOUNT}, "sandbox", "mount"},
		{"Podman", "unshare -m sh -c 'mount -t tmpfs none /run && touch /run/.containerenv && exec " + doctor + "'", []int{unix.SYS_PTRACE}, "container*", "podman run --security-opt seccomp=unconfined"},
		{"a small disk", "unshare -m sh -c 'mount -t tmpfs -o size=3g none /mnt && exec " + doctor + " --work-dir /mnt'", nil, "work directory*", "--work-dir"},
		{"no room to write", user + doctor + " --work-dir /proc", nil, "work directory", "--work-dir"},
		{"no gVisor", doctor + " --runsc /nowhere", nil, "gVisor", "--runsc"},
		{"no executor", doctor + " --executor /nowhere", nil, "executor", "--executor"},
		{"another executor", doctor + " --executor /bin/busybox", nil, "sandbox", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", "exec "+tt.shell)
			if tt.deny != nil {
				cmd = exec.Command(self, "/bin/sh", "-c", "exec "+tt.shell)
				cmd.Env = append(os.Environ(), denyEnv+"="+strings.ReplaceAll(numbers(tt.deny...), " ", ","))
			}
			tmp := t.TempDir()
			openTo(t, tmp, someone)
			if err := os.Chmod(tmp, 0o777); err != nil { // root may have given up its rights over files
				t.Fatal(err)
			}
			cmd.Dir = "/"
			cmd.Env = append(cmd.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			var d diagnosis
			if e := json.Unmarshal(out, &d); e != nil {
				t.Fatalf("%v, %v: %s%s", err, e, out, stderr.Bytes())
			}
			checkDiagnosis(t, d, tt.want, tt.hint)
			if missing := !strings.HasSuffix(tt.want, "*") && tt.want != ""; d.OK == missing && tt.name != "Podman" || (err != nil) == d.OK {
				t.Errorf("ok: %v, %v; not ok: %q", d.OK, err, d.not())
			}
			if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func checkDiagnosis(t *testing.T, d diagnosis, want, hint string) {
	t.Helper()
	if want == "" {
		if d.PostureDigest == "" || len(d.Posture) < 2 {
			t.Errorf("no posture: %+v", d)
		}
		return
	}
	if !slices.Contains(d.not(), want) {
		t.Errorf("%s is ok, not ok are %q: %+v", want, d.not(), d.Checks)
	}
	told := false
	for _, c := range d.Checks {
		if c.Status != "ok" && c.Hint == "" && c.Name != "sandbox" {
			t.Errorf("%s has no hint: %s", c.Name, c.Found)
		}
		told = told || c.Status != "ok" && strings.Contains(c.Hint+c.Found, hint)
	}
	if !told {
		t.Errorf("nothing says %q: %+v", hint, d.Checks)
	}
}

// openTo gives a directory below the temporary ones to a user.
func openTo(t *testing.T, dir string, uid int) {
	t.Helper()
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
