package git

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// defaultUser is who logs in where the URL names nobody: the user that builds,
// as with BuildKit.
const defaultUser = "root"

// maxComplaint bounds what is kept of a server's standard error, in bytes.
const maxComplaint = 4 << 10

// connectSSH starts git-upload-pack on a host. The keys are the agent's. Nobody
// has told the host's own key: like BuildKit, which asks each host for it, the
// first one that a host shows in a checkout is trusted, and no other after it.
func (v *visit) connectSSH(ctx context.Context, u *url.URL) (conn, error) {
	if v.cfg.Agent == nil {
		return nil, errors.New(`no SSH key "default" forwarded from the client: use --ssh default`)
	}
	c, err := v.dial(ctx, u, "22")
	if err != nil {
		return nil, err
	}
	user := defaultUser
	if name := u.User.Username(); name != "" {
		user = name
	}
	keys := agent.NewClient(&agentPipe{ctx: ctx, ask: v.cfg.Agent})
	inner, channels, requests, err := ssh.NewClientConn(c, c.RemoteAddr().String(), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(keys.Signers)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error { return v.trust(u.Host, key) },
	})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	client := ssh.NewClient(inner, channels, requests)
	s, err := startUploadPack(client, u)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return s, nil
}

// trust accepts the first key that a host shows.
func (v *visit) trust(host string, key ssh.PublicKey) error {
	if known, ok := v.hosts[host]; ok && !bytes.Equal(known, key.Marshal()) {
		return fmt.Errorf("%s has another host key than before", host)
	}
	if v.hosts == nil {
		v.hosts = map[string][]byte{}
	}
	v.hosts[host] = key.Marshal()
	return nil
}

func startUploadPack(client *ssh.Client, u *url.URL) (*streamConn, error) {
	s, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	complaint := &complaint{}
	s.Stderr = complaint
	w, err := s.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, err := s.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// A server that does not accept this speaks version 0.
	_ = s.Setenv("GIT_PROTOCOL", "version=2")
	// ssh://host/~user/repo: the slash only ends the host.
	at := remotePath(u)
	if strings.HasPrefix(at, "/~") {
		at = at[1:]
	}
	if err := s.Start("git-upload-pack " + shellQuoted(at)); err != nil {
		return nil, err
	}
	return &streamConn{lines: newLines(r), w: w, end: func() string {
		client.Close()
		return complaint.String()
	}}, nil
}

// shellQuoted quotes as git does: some servers take off no other quotes.
func shellQuoted(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// complaint keeps the beginning of what is written to it.
type complaint struct {
	mu   sync.Mutex
	text []byte
}

func (c *complaint) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, b[:min(len(b), maxComplaint-len(c.text))]...)
	return len(b), nil
}

func (c *complaint) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return printable(c.text)
}

// agentPipe is a connection to the agent for a client that wants one: what is
// written is a message with its length, and its reply can be read then.
type agentPipe struct {
	ctx   context.Context
	ask   func(ctx context.Context, message []byte) ([]byte, error)
	reply bytes.Buffer
}

func (p *agentPipe) Write(b []byte) (int, error) {
	if len(b) < 4 || int(binary.BigEndian.Uint32(b)) != len(b)-4 {
		return 0, io.ErrShortWrite
	}
	reply, err := p.ask(p.ctx, b[4:])
	if err != nil {
		return 0, err
	}
	p.reply.Reset()
	p.reply.Write(binary.BigEndian.AppendUint32(nil, uint32(len(reply))))
	p.reply.Write(reply)
	return len(b), nil
}

func (p *agentPipe) Read(b []byte) (int, error) { return p.reply.Read(b) }
