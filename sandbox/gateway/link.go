package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The link's addresses. They lie in ranges that no network routes (RFC 7335,
// and a unique local prefix of our own), so they hide no address that a build
// may want to reach.
var (
	GatewayIPv4 = netip.AddrFrom4([4]byte{192, 0, 0, 1})
	SandboxIPv4 = netip.AddrFrom4([4]byte{192, 0, 0, 2})
	GatewayIPv6 = netip.AddrFrom16([16]byte{0xfd, 'k', 'b', 'u', 'i', 'l', 'd', 15: 1})
	SandboxIPv6 = netip.AddrFrom16([16]byte{0xfd, 'k', 'b', 'u', 'i', 'l', 'd', 15: 2})
)

const (
	linkBits4 = 29
	linkBits6 = 64
)

// LinkMTU makes packets as large as IP has them: the link is memory, and each
// packet costs the same.
const LinkMTU = 65000

// firstExtraFD is the number that os/exec gives to the first extra file.
const firstExtraFD = 3

// linkWait is what the first stage has for making the link.
const linkWait = 20 * time.Second

// Start is a command that starts on the sandbox's side of a new link.
type Start struct {
	control, theirs *os.File
	conn            *net.UnixConn
}

// Through changes cmd, which was not started yet: it will run in a network
// namespace of its own with lo and eth0 in it, and eth0 leads to the packet
// socket that Link returns. Nothing of the host's network changes, and nothing
// is left when the processes have ended, however they end.
//
// It takes two namespaces: the far end of the veth pair is in a second one,
// since runsc takes over every interface that it sees. No process lives in that
// one: the packet socket keeps it. An ordinary user makes both inside the user
// namespace that cmd starts in already (cmd.SysProcAttr.Cloneflags); root needs
// none. The kernel makes them, not a program with rights of its own.
//
// cmd becomes the first stage: this program again (self is its file), which
// must call FirstStage with its arguments if IsFirstStage says so. It makes the
// link, hands the socket back, waits for Go, and turns into what cmd was. So the
// process is the same one all along, to be waited for and killed as before.
func Through(cmd *exec.Cmd, self string) (*Start, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("link: make socket pair: %w", err)
	}
	s := &Start{control: os.NewFile(uintptr(fds[0]), "link"), theirs: os.NewFile(uintptr(fds[1]), "link")}
	cmd.ExtraFiles = append(cmd.ExtraFiles, s.theirs)
	fd := firstExtraFD + len(cmd.ExtraFiles) - 1
	args := append([]string{self, stageArg, strconv.Itoa(fd), cmd.Path}, cmd.Args...)
	cmd.Path, cmd.Args, cmd.Err = self, args, nil
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	return s, nil
}

// Link waits for the link, after cmd was started, and returns the packet socket
// of its far end.
func (s *Start) Link() (*os.File, error) {
	s.theirs.Close() // else its end would never be seen
	c, err := net.FileConn(s.control)
	s.control.Close()
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	s.conn = c.(*net.UnixConn)
	if err := s.conn.SetReadDeadline(time.Now().Add(linkWait)); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	text, space := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := s.conn.ReadMsgUnix(text, space)
	switch {
	case err != nil:
		return nil, fmt.Errorf("link: the first stage ended: %w", err)
	case n == 0:
		return nil, errors.New("link: the first stage ended")
	}
	fd, err := passedFD(space[:oob])
	if err != nil {
		return nil, fmt.Errorf("link: %s", text[:n])
	}
	return os.NewFile(uintptr(fd), "link"), nil
}

// passedFD takes the one descriptor out of a message.
func passedFD(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return 0, errors.New("no descriptor was passed")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.New("not one descriptor was passed")
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// Go lets the first stage become the command. Call it when the gateway serves.
func (s *Start) Go() error {
	_, err := s.conn.Write([]byte{1})
	s.conn.Close()
	if err != nil {
		return fmt.Errorf("link: the first stage ended: %w", err)
	}
	return nil
}

// Close gives the rest up, where cmd could not be started or has no link; the
// first stage ends then. After Go it does nothing.
func (s *Start) Close() {
	s.theirs.Close()
	s.control.Close()
	if s.conn != nil {
		s.conn.Close()
	}
}
