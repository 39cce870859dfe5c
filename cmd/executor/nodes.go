package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A process in a user namespace of its own may not make device nodes; its
// parent outside may. nodeRequest asks for one; the directory travels with it
// as a file descriptor.
type nodeRequest struct {
	Name []byte `json:"name"` // not a string: JSON changes what is no UTF-8
	Mode uint32 `json:"mode"`
	Dev  uint64 `json:"dev"`
}

// maxNodeRequest bounds a request: a file name has at most 255 bytes.
const maxNodeRequest = 4 << 10

// serveNodes makes device nodes for the other end of the socket until that is
// closed.
func serveNodes(sock int) {
	buf := make([]byte, maxNodeRequest)
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		answer := ""
		if err := makeNode(buf[:n], oob[:oobn]); err != nil {
			answer = err.Error()
			var errno unix.Errno
			if errors.As(err, &errno) {
				answer = fmt.Sprintf("errno %d", int(errno))
			}
		}
		if _, err := unix.Write(sock, []byte("="+answer)); err != nil {
			return
		}
	}
}

func makeNode(msg, oob []byte) error {
	dir, err := receivedFd(oob)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var r nodeRequest
	if err := json.Unmarshal(msg, &r); err != nil {
		return err
	}
	if t := r.Mode & unix.S_IFMT; t != unix.S_IFCHR && t != unix.S_IFBLK {
		return fmt.Errorf("mode %o is no device", r.Mode)
	}
	name := string(r.Name)
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return fmt.Errorf("name %q", name)
	}
	return unix.Mknodat(dir, name, r.Mode, int(r.Dev))
}

func receivedFd(oob []byte) (int, error) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	for _, c := range cmsgs {
		if fds, err := unix.ParseUnixRights(&c); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no directory came with the request")
}

// nodeMaker is the child's end: its make method has the form that package layer
// wants. Nodes that the child can make itself (whiteouts, pipes) do not come
// here.
type nodeMaker struct {
	mu   sync.Mutex
	sock int
}

func (m *nodeMaker) make(dirfd int, name string, mode uint32, dev uint64) error {
	err := unix.Mknodat(dirfd, name, mode, int(dev))
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return m.ask(dirfd, name, mode, dev)
}

func (m *nodeMaker) ask(dirfd int, name string, mode uint32, dev uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg, err := json.Marshal(nodeRequest{Name: []byte(name), Mode: mode, Dev: dev})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(m.sock, msg, unix.UnixRights(dirfd), nil, 0); err != nil {
		return fmt.Errorf("ask for device node: %w", err)
	}
	buf := make([]byte, maxNodeRequest)
	n, err := unix.Read(m.sock, buf)
	if err != nil {
		return fmt.Errorf("ask for device node: %w", err)
	}
	var errno int
	switch answer := strings.TrimPrefix(string(buf[:n]), "="); {
	case answer == "":
		return nil
	case parseErrno(answer, &errno):
		return unix.Errno(errno)
	default:
		return errors.New("make device node: " + answer)
	}
}

func parseErrno(s string, errno *int) bool {
	n, err := fmt.Sscanf(s, "errno %d", errno)
	return err == nil && n == 1
}

// nodeSockets returns a connected pair for serveNodes and a nodeMaker.
func nodeSockets() (parent int, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("make socket for device nodes: %w", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "nodes"), nil
}
