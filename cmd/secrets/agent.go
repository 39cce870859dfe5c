package secrets

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// agentTime bounds one exchange with an agent: a person may have to confirm the
// use of a key, or to touch it.
const agentTime = 2 * time.Minute

// dialTime bounds the connection to an agent's socket.
const dialTime = 5 * time.Second

// Messages of the agent protocol, by their first byte (draft-miller-ssh-agent,
// section 5.1).
const (
	agentFailure      = 5
	requestIdentities = 11
	identitiesAnswer  = 12
	signRequest       = 13
	signResponse      = 14
)

// exchange sends one message to an agent and returns its reply, both without
// their length.
type exchange func(ctx context.Context, message []byte) (reply []byte, err error)

func failure() []byte { return []byte{agentFailure} }

// permitted tells whether a message may reach an agent: a request for the list
// of keys, or for a signature, in which case key is the key's fingerprint. Both
// must be formed as the protocol has it, to the last byte.
func permitted(message []byte) (key string, ok bool) {
	if len(message) == 0 || len(message) > request.MaxAgentMessage {
		return "", false
	}
	kind, rest := message[0], message[1:]
	switch kind {
	case requestIdentities:
		return "", len(rest) == 0
	case signRequest:
		blob, rest, ok := cutString(rest)
		if !ok {
			return "", false
		}
		_, rest, ok = cutString(rest)
		return fingerprint(blob), ok && len(rest) == 4 // flags
	}
	return "", false
}

// fits tells whether reply is one that message can have.
func fits(message, reply []byte) bool {
	if len(reply) == 0 {
		return false
	}
	want := byte(identitiesAnswer)
	if message[0] == signRequest {
		want = signResponse
	}
	return reply[0] == want || reply[0] == agentFailure && len(reply) == 1
}

// cutString takes a string of the SSH protocols off data: its length in four
// bytes, then so many bytes (RFC 4251, section 5).
func cutString(data []byte) (s, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n) > uint64(len(data)) {
		return nil, nil, false
	}
	return data[:n], data[n:], true
}

// fingerprint is what ssh-keygen -l shows of a key.
func fingerprint(blob []byte) string {
	sum := sha256.Sum256(blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// open makes an exchange of what Paths are.
func (l Agent) open() (exchange, error) {
	var keys []string
	var socket string
	for _, path := range l.Paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, plain(err)
		case info.Mode().Type() == os.ModeSocket:
			socket = path
		default:
			keys = append(keys, path)
		}
	}
	switch {
	case len(l.Paths) == 0:
		return nil, errors.New("no socket and no key")
	case socket == "":
		return newKeyring(keys)
	case len(l.Paths) > 1:
		return nil, errors.New("want one socket, or files with keys")
	}
	conn, err := dial(context.Background(), socket)
	if err != nil {
		return nil, err
	}
	return overSocket(socket), conn.Close()
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the agent: %w", err)
	}
	return conn, nil
}

// overSocket is an agent behind a Unix socket. Each message has a connection of
// its own, so that an agent keeps nothing between two of them.
func overSocket(socket string) exchange {
	return func(ctx context.Context, message []byte) ([]byte, error) {
		conn, err := dial(ctx, socket)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if _, err := conn.Write(framed(message)); err != nil {
			return nil, ended(ctx, err)
		}
		reply, err := readMessage(conn)
		if err != nil {
			return nil, ended(ctx, err)
		}
		return reply, nil
	}
}

// ended is ctx's own error where that was the cause of err.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// framed is a message with its length.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// readMessage reads one message and takes off its length.
func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > request.MaxAgentMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}
