package step

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// auditAgent sends messages, in hexadecimal, over one connection and prints the
// replies. "crowd" fills all places first, "hang" does not wait for a reply,
// "huge" announces more than a message may have.
func auditAgent(args []string) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range args {
		switch a {
		case "crowd":
			for range maxClients - 1 {
				if _, err := net.Dial("unix", socket); err != nil {
					fmt.Println(err)
				}
			}
			one, err := net.Dial("unix", socket)
			if err == nil {
				_, err = one.Write(framedHex("0b"))
			}
			if err == nil {
				err = one.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			}
			if err != nil {
				fmt.Println(err)
			}
			_, err = readMessage(one)
			fmt.Println("one too many:", errors.Is(err, os.ErrDeadlineExceeded))
			conn.Close()
			one.SetReadDeadline(time.Now().Add(10 * time.Second))
			reply, err := readMessage(one)
			fmt.Printf("a place is free: %x %v\n", reply, err)
			return
		case "hang":
			conn.Write(framedHex("0b"))
			fmt.Println("sent")
			return
		case "huge":
			conn.Write(binary.BigEndian.AppendUint32(nil, request.MaxAgentMessage+1))
		default:
			conn.Write(framedHex(a))
		}
		reply, err := readMessage(conn)
		fmt.Printf("%x %v\n", reply, err)
	}
}

func framedHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func sshMount(id, target string) plan.Mount {
	m := plan.Mount{Type: "ssh", ID: id, Target: target, Env: "SSH_AUTH_SOCK"}
	ownedBy(&m, 0o600, 0, 0)
	return m
}

// withAgent lends an agent that answers a message by its bytes in reverse, and
// returns the messages it gets.
func (b *bench) withAgent(id string) (got func() []string) {
	var mu sync.Mutex
	var list []string
	b.env.Agent = func(name string) func(context.Context, []byte) ([]byte, error) {
		if name != id {
			return nil
		}
		return func(ctx context.Context, message []byte) ([]byte, error) {
			mu.Lock()
			list = append(list, hex.EncodeToString(message))
			mu.Unlock()
			if message[0] == 0xff {
				return nil, errors.New("no")
			}
			reply := slices.Clone(message)
			slices.Reverse(reply)
			return reply, nil
		}
	}
	return func() []string { return list }
}

func TestMountAgent(t *testing.T) {
	b := newBench(t)
	got := b.withAgent("default")
	m := sshMount("default", "/run/buildkit/ssh_agent.0")
	upper := b.want(withMounts(`stat -c '%F %a %u:%g' $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK; auditor agent 0b0102 0d ff 0e`, m),
		"socket 600 0:0\n/run/buildkit/ssh_agent.0\n02010b <nil>\n0d <nil>\n05 <nil>\n0e <nil>\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	if want := []string{"0b0102", "0d", "ff", "0e"}; !slices.Equal(got(), want) {
		t.Errorf("the agent got %q, want %q", got(), want)
	}
	b.want(shell(`ls -d /run 2>/dev/null || echo "none [$SSH_AUTH_SOCK]"`), "none []\n")

	b.want(withMounts("auditor agent huge", m), " EOF\n")
	none := withMounts("auditor agent 0b", m)
	none.Network = "none"
	b.want(none, "0b <nil>\n")
	two := sshMount("default", "/b")
	two.Env = ""
	b.want(withMounts("auditor agent 0b; SSH_AUTH_SOCK=/b auditor agent 0c", m, two), "0b <nil>\n0c <nil>\n")
	b.want(withMounts("auditor agent crowd", m), "one too many: true\na place is free: 0b <nil>\n")
}

func TestMountAgentRights(t *testing.T) {
	b := newBench(t)
	b.withAgent("default")
	m := sshMount("default", "/s")
	op := runAs("app", "auditor agent 0b")
	op.Mounts = []plan.Mount{m}
	if got, _, err := b.do(op); err != nil || !strings.Contains(got, "permission denied") {
		t.Errorf("%q, %v", got, err)
	}
	ownedBy(&op.Mounts[0], 0o640, 1000, 2000)
	op.Args[2] = "stat -c '%a %u:%g' /s; auditor agent 0b"
	b.want(op, "640 1000:2000\n0b <nil>\n")
}

func TestMountAgentMissing(t *testing.T) {
	b := newBench(t)
	m := sshMount("other", "/s")
	for range 2 {
		b.want(withMounts(`test -e "$SSH_AUTH_SOCK" || echo "none at $SSH_AUTH_SOCK"`, m), "none at /s\n")
		m.Required = true
		_, _, err := b.do(withMounts("true", m))
		if err == nil || err.Error() != `no SSH key "other" forwarded from the client` {
			t.Error(err)
		}
		m.Required = false
		b.withAgent("default")
	}
}

// TestMountAgentEnds: nothing of an agent is left when the command has ended,
// not even a message that waits for its reply.
func TestMountAgentEnds(t *testing.T) {
	b := newBench(t)
	ended := make(chan error, 1)
	b.env.Agent = func(string) func(context.Context, []byte) ([]byte, error) {
		return func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	b.want(withMounts("auditor agent hang; sleep 1", sshMount("x", "/s")), "sent\n")
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	default:
		t.Error("the message still waits")
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil || strings.Contains(string(sockets), "/agent") {
		t.Errorf("%v:\n%s", err, sockets)
	}
}
