package step

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	seccomp "github.com/kbuild-sandbox/kbuild-sandbox/policy/filter"
)

const (
	configFD = 3
	reportFD = 4
	// maxConfig bounds the config, in bytes: a Dockerfile has at most 8 MiB.
	maxConfig = 64 << 20
)

// Child is the executor's program in the role of the RUN child: it stands in
// the namespaces that the executor made for it, builds the command's world,
// gives up every right that the command is not to have, and becomes the command,
// process 1 of its PID namespace. It returns only if that fails; the executor
// has then been told why.
func Child(args []string) int {
	// Credentials and filters belong to a thread: this is the one that execs.
	runtime.LockOSThread()
	rep := report{What: "unexpected arguments", Errno: unix.EINVAL}
	if len(args) == 0 {
		rep = becomeCommand()
	}
	// If nobody listens any more there is nobody to tell.
	_ = json.NewEncoder(os.NewFile(reportFD, "report")).Encode(rep)
	return 1
}

// becomeCommand returns only if it fails.
func becomeCommand() report {
	// Whatever the executor has open: the command gets 0, 1 and 2.
	if err := unix.CloseRange(configFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return failed("close files", err)
	}
	c, err := readConfig()
	if err != nil {
		return failed("read config", err)
	}
	if err := c.enterRoot(); err != nil {
		return failed("set up the root filesystem", err)
	}
	if err := c.enterCwd(); err != nil {
		return failed("enter the working directory "+c.Cwd, err)
	}
	var wall *WallError
	switch err := c.dropRights(); {
	case errors.As(err, &wall):
		return report{Wall: wall}
	case err != nil:
		return failed("drop rights", err)
	}
	file, err := lookCommand(c.Args[0], c.Env)
	if err != nil {
		return report{Exec: true, What: fmt.Sprintf("exec %q: not found in $PATH", c.Args[0]), Errno: unix.ENOENT}
	}
	err = syscall.Exec(file, c.Args, c.Env)
	rep := failed("exec "+file, err)
	rep.Exec, rep.File = true, file
	return rep
}

// failed is a report of err. What has no number of its own is told in words.
func failed(what string, err error) report {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return report{What: what + ": " + err.Error(), Errno: unix.EINVAL}
	}
	if msg := strings.TrimSuffix(err.Error(), ": "+errno.Error()); msg != errno.Error() {
		what += ": " + msg
	}
	return report{What: what, Errno: errno}
}

func readConfig() (*childConfig, error) {
	f := os.NewFile(configFD, "config")
	defer f.Close()
	var c childConfig
	if err := gob.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Args) == 0 || c.Root == "" {
		return nil, errors.New("no command or no root")
	}
	return &c, nil
}

// enterCwd goes to the working directory, as root, as runc does. Where it leads
// out of the root (through a descriptor that should not be open) it is refused.
func (c *childConfig) enterCwd() error {
	if err := unix.Chdir(c.Cwd); err != nil {
		return err
	}
	cwd, err := os.Readlink("/proc/self/cwd")
	if err == nil && !path.IsAbs(cwd) {
		return unix.ENOENT
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return err
	}
	if n == 0 || buf[0] != '/' {
		return unix.ENOENT
	}
	return nil
}

// dropRights leaves Docker's default capabilities to root and none to others,
// and loads the RUN filter. The order matters: the filter can be loaded only
// while CAP_SYS_ADMIN is there, since no_new_privs is off for set-id programs.
func (c *childConfig) dropRights() error {
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setsid: %w", err)
	}
	unix.Umask(0o022)
	if c.Identity.UID != 0 {
		// So that /dev/stdout can be opened by name. Some kinds of files do
		// not let themselves be given away; then it stays closed.
		_ = unix.Fchown(1, int(c.Identity.UID), int(c.Identity.GID))
		_ = unix.Fchown(2, int(c.Identity.UID), int(c.Identity.GID))
	}
	keep, err := policy.CapabilityMask(policy.RunCapabilities())
	if err != nil {
		return err
	}
	if err := cutBoundingSet(keep); err != nil {
		return fmt.Errorf("bounding set: %w", err)
	}
	if err := seccomp.Load(policy.RunTable()); err != nil {
		return err
	}
	if err := setIDs(c.Identity); err != nil {
		return err
	}
	own := keep
	if c.Identity.UID != 0 {
		own = 0
	}
	if err := setCapabilities(own); err != nil {
		return err
	}
	return verifyRights(c.Identity, keep, own)
}

// lookCommand finds name as execvp would, in absolute directories of PATH.
func lookCommand(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(list, ":") {
			file := path.Join(dir, name)
			if !path.IsAbs(dir) || unix.Access(file, unix.X_OK) != nil {
				continue
			}
			var st unix.Stat_t
			if unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				return file, nil
			}
		}
	}
	return "", unix.ENOENT
}
