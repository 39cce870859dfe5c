package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// hostProcess is a process as /proc shows it.
type hostProcess struct {
	request.HostProcess
	dir     string              // /proc/PID
	threads []map[string]string // the status of each
	args    []string
	open    []openFile
}

// openFile is an open file of a process.
type openFile struct {
	name     string // as the kernel calls it
	info     fs.FileInfo
	writable bool
}

// namespaceNames are those that keep a process apart; /proc/PID/ns calls them so.
func namespaceNames() []string { return []string{"ipc", "mnt", "net", "pid", "user", "uts"} }

// measureProcess reads /proc about one process of gVisor.
func measureProcess(p runsc.Process) (*hostProcess, error) {
	h := &hostProcess{dir: filepath.Join("/proc", strconv.Itoa(p.PID))}
	h.Role = string(p.Role)
	for _, part := range []func(*hostProcess) error{
		readThreads, readNamespaces, readRoot, readMounts, readFiles, readArgs,
	} {
		if err := part(h); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func readThreads(h *hostProcess) error {
	threads, err := os.ReadDir(filepath.Join(h.dir, "task"))
	if err != nil {
		return err
	}
	for _, t := range threads {
		status, err := readStatus(filepath.Join(h.dir, "task", t.Name(), "status"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has just ended
		}
		if err != nil {
			return err
		}
		h.threads = append(h.threads, status)
	}
	if len(h.threads) == 0 {
		return errors.New("it has no thread")
	}
	s := h.threads[0]
	h.UID, h.GID = firstNumber(s["Uid"]), firstNumber(s["Gid"])
	h.Seccomp, h.NoNewPrivs = firstNumber(s["Seccomp"]), s["NoNewPrivs"] == "1"
	h.Capabilities = request.Capabilities{
		Inheritable: s["CapInh"], Permitted: s["CapPrm"], Effective: s["CapEff"], Bounding: s["CapBnd"], Ambient: s["CapAmb"],
	}
	return nil
}

// firstNumber is -1 where there is none.
func firstNumber(s string) int {
	first, _, _ := strings.Cut(s, "\t")
	n, err := strconv.Atoi(first)
	if err != nil {
		return -1
	}
	return n
}

// readStatus reads a /proc/.../status file.
func readStatus(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), ":")
		out[name] = strings.TrimSpace(value)
	}
	return out, s.Err()
}

func readNamespaces(h *hostProcess) error {
	h.Namespaces = []string{}
	for _, name := range namespaceNames() {
		own, err := os.Readlink(filepath.Join("/proc/self/ns", name))
		if err != nil {
			return err
		}
		theirs, err := os.Readlink(filepath.Join(h.dir, "ns", name))
		if err != nil {
			return err
		}
		if own != theirs {
			h.Namespaces = append(h.Namespaces, name)
		}
	}
	return nil
}

func readRoot(h *hostProcess) error {
	entries, err := os.ReadDir(filepath.Join(h.dir, "root") + "/")
	if err != nil {
		return err
	}
	h.Root = []string{}
	for _, e := range entries {
		h.Root = append(h.Root, e.Name())
	}
	return nil
}

// readMounts lists all mounts that the process can reach
// (proc_pid_mountinfo(5)).
func readMounts(h *hostProcess) error {
	data, err := os.ReadFile(filepath.Join(h.dir, "mountinfo"))
	if err != nil {
		return err
	}
	h.Mounts = []request.Mounted{}
	for line := range strings.Lines(string(data)) {
		own, super, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(own), strings.Fields(super)
		if !ok || len(left) < 6 || len(right) < 1 {
			return fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		kind := right[0]
		if kind != "tmpfs" {
			kind = "host" // which kind of disk the host has is no matter
		}
		h.Mounts = append(h.Mounts, request.Mounted{
			Target: request.GuestPath(left[4]), Type: kind, Writable: !slices.Contains(strings.Split(left[5], ","), "ro"),
		})
	}
	slices.SortStableFunc(h.Mounts, func(a, b request.Mounted) int { return strings.Compare(string(a.Target), string(b.Target)) })
	return nil
}

func readFiles(h *hostProcess) error {
	entries, err := os.ReadDir(filepath.Join(h.dir, "fd"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(h.dir, "fd", e.Name())
		name, err1 := os.Readlink(path)
		info, err2 := os.Stat(path)
		mode, err3 := readStatus(filepath.Join(h.dir, "fdinfo", e.Name()))
		err := errors.Join(err1, err2, err3)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just closed
		}
		if err != nil {
			return err
		}
		flags, err := strconv.ParseUint(mode["flags"], 8, 64)
		if err != nil {
			return fmt.Errorf("fdinfo: %w", err)
		}
		h.open = append(h.open, openFile{name: name, info: info, writable: flags&unix.O_ACCMODE != unix.O_RDONLY})
		h.Files = append(h.Files, h.open[len(h.open)-1].kind())
	}
	slices.Sort(h.Files)
	h.Files = slices.Compact(h.Files)
	return nil
}

// kind is what sort of file it is, without a name or a number that varies.
func (f openFile) kind() string {
	mode := f.info.Mode()
	switch {
	case strings.HasPrefix(f.name, "/memfd:"):
		return "memory"
	case mode.Type() == fs.ModeSocket:
		return "socket"
	case mode.Type() == fs.ModeNamedPipe:
		return "pipe"
	case !strings.HasPrefix(f.name, "/"):
		return f.name // anon_inode:[eventfd]
	case mode.Type()&fs.ModeDevice != 0:
		return f.name // /dev/null
	case f.writable:
		return "file, writable"
	case mode.IsDir():
		return "directory"
	}
	return "file"
}

func readArgs(h *hostProcess) error {
	data, err := os.ReadFile(filepath.Join(h.dir, "cmdline"))
	h.args = strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	return err
}

// children are the processes that a process of gVisor has started: the stubs in
// which the sandbox's programs run. A kernel that cannot tell them has none.
func (h *hostProcess) children() ([]int, error) {
	files, err := filepath.Glob(filepath.Join(h.dir, "task", "*", "children"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		for _, text := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
