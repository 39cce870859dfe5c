package git

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// sshServer serves the repositories below root to whoever has the key that the
// agent it returns holds. With version2 it takes the variable GIT_PROTOCOL.
func sshServer(t *testing.T, root string, version2 bool) (address string, ask func(context.Context, []byte) ([]byte, error)) {
	t.Helper()
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	user, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, got ssh.PublicKey) (*ssh.Permissions, error) {
		if string(got.Marshal()) != string(user.Marshal()) {
			return nil, io.EOF
		}
		return nil, nil
	}}
	cfg.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(c, cfg, root, version2)
		}
	}()
	return l.Addr().String(), askKeyring(keys)
}

func serveSSH(c net.Conn, cfg *ssh.ServerConfig, root string, version2 bool) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		env := gitEnv()
		for r := range requests {
			switch r.Type {
			case "env":
				var v struct{ Name, Value string }
				ok := version2 && ssh.Unmarshal(r.Payload, &v) == nil
				if ok {
					env = append(env, v.Name+"="+v.Value)
				}
				r.Reply(ok, nil)
			case "exec":
				var v struct{ Command string }
				ssh.Unmarshal(r.Payload, &v)
				r.Reply(true, nil)
				// As sshd does: the user's shell.
				cmd := exec.Command("/bin/sh", "-c", v.Command)
				cmd.Dir, cmd.Env = root, env
				cmd.Stdin, cmd.Stdout, cmd.Stderr = ch, ch, ch.Stderr()
				cmd.Run()
				ch.Close()
			}
		}
	}
}

// askKeyring speaks the agent's protocol for a keyring, by messages.
func askKeyring(keys agent.Agent) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, message []byte) ([]byte, error) {
		here, there := net.Pipe()
		go agent.ServeAgent(keys, there)
		defer here.Close()
		if _, err := here.Write(append([]byte{0, 0, byte(len(message) >> 8), byte(len(message))}, message...)); err != nil {
			return nil, err
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(here, head); err != nil {
			return nil, err
		}
		reply := make([]byte, int(head[2])<<8|int(head[3]))
		_, err := io.ReadFull(here, reply)
		return reply, err
	}
}

func TestSSHHostKeyMustNotChange(t *testing.T) {
	v := &visit{}
	key := func() ssh.PublicKey {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key()
	for _, step := range []struct {
		host string
		key  ssh.PublicKey
		ok   bool
	}{
		{"a", first, true}, {"a", first, true}, {"a", key(), false}, {"b", key(), true}, {"a", first, true},
	} {
		if err := v.trust(step.host, step.key); (err == nil) != step.ok {
			t.Errorf("%s: %v, want ok %v", step.host, err, step.ok)
		}
	}
}

func TestShellQuoted(t *testing.T) {
	for _, s := range []string{"/plain", "it's", "a b", "$HOME", "`id`", "a!b", `back\slash`, "'", "-x;y"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellQuoted(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q: the shell sees %q, %v", s, out, err)
		}
	}
	if !strings.Contains(shellQuoted("a!b"), `'\!'`) {
		t.Error("! is history for some shells")
	}
}
