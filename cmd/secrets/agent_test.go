package secrets

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// fakeAgent listens at a socket and answers each message with what reply makes
// of it; after what is no whole message it hangs up.
type fakeAgent struct {
	path string
	mu   sync.Mutex
	got  [][]byte
}

func newFakeAgent(t testing.TB, reply func(message []byte) []byte) *fakeAgent {
	t.Helper()
	dir, err := os.MkdirTemp("", "a") // short, for a socket
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAgent{path: filepath.Join(dir, "s")}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn, reply)
		}
	}()
	return f
}

func (f *fakeAgent) serve(conn net.Conn, reply func([]byte) []byte) {
	defer conn.Close()
	for {
		message, err := readMessage(conn)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.got = append(f.got, message)
		f.mu.Unlock()
		r := reply(message)
		if _, err := conn.Write(r); err != nil {
			return
		}
		if _, rest, ok := cutString(r); !ok || len(rest) > 0 {
			return
		}
	}
}

// messages are all that came.
func (f *fakeAgent) messages() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

func open(t testing.TB, sink request.Sink, paths ...string) *Store {
	t.Helper()
	s, err := Open(Lent{Agents: []Agent{{ID: "a", Paths: paths}}}, noEnv, sink)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func signing(blob, data string, flags ...byte) []byte {
	out := appendString([]byte{signRequest}, []byte(blob))
	return append(appendString(out, []byte(data)), flags...)
}

// TestAgentWall sends all kinds of messages to an agent that says yes to
// everything: only lists and signatures get to it.
func TestAgentWall(t *testing.T) {
	yes := func(message []byte) []byte {
		kind := byte(identitiesAnswer)
		if message[0] == signRequest {
			kind = signResponse
		}
		return framed([]byte{kind, 0, 0, 0, 0})
	}
	f := newFakeAgent(t, yes)
	sink := &events{}
	s := open(t, sink, f.path)
	permitted := [][]byte{{requestIdentities}, signing("key", "data", 0, 0, 0, 4), signing("", "", 0, 0, 0, 0)}
	for _, m := range permitted {
		reply, err := s.Agent(t.Context(), "a", m)
		if err != nil || len(reply) != 5 {
			t.Errorf("%x: %x, %v", m, reply, err)
		}
	}
	refused := [][]byte{
		nil, {}, {requestIdentities, 0}, {signRequest}, signing("key", "data"), signing("key", "data", 0, 0, 0), signing("key", "data", 0, 0, 0, 0, 0),
		append([]byte{signRequest, 0xff, 0xff, 0xff, 0xff}, 0), append([]byte{signRequest}, 0, 0, 0, 1, 'k', 0xff, 0xff, 0xff, 0xff),
		append([]byte{requestIdentities}, make([]byte, request.MaxAgentMessage)...),
		signing(strings.Repeat("k", request.MaxAgentMessage), "", 0, 0, 0, 0),
	}
	// Every kind of message but the two, empty and with what a signature needs.
	for kind := range 256 {
		if kind == signRequest {
			continue
		}
		body := signing("key", "data", 0, 0, 0, 0)
		body[0] = byte(kind)
		refused = append(refused, body)
		if kind != requestIdentities {
			refused = append(refused, []byte{byte(kind)})
		}
	}
	for _, m := range refused {
		reply, err := s.Agent(t.Context(), "a", m)
		if err != nil || !bytes.Equal(reply, []byte{agentFailure}) {
			t.Errorf("%.40x: %x, %v", m, reply, err)
		}
	}
	if got := f.messages(); !slices.EqualFunc(got, permitted, bytes.Equal) {
		t.Errorf("the agent got %x", got)
	}
	if got := sink.texts(request.EventDebug); len(got) != 2 || !strings.HasPrefix(got[0], "SSH agent a: a signature of SHA256:") {
		t.Errorf("told: %q", got)
	}
}

// TestAgentReplies: what an agent says that is no reply does not pass, and what
// is wrong with it is told on this side only, once.
func TestAgentReplies(t *testing.T) {
	for name, tt := range map[string]struct {
		reply []byte
		want  []byte
		told  string
	}{
		"keys":           {framed([]byte{identitiesAnswer, 0, 0, 0, 0}), []byte{identitiesAnswer, 0, 0, 0, 0}, ""},
		"no":             {framed([]byte{agentFailure}), []byte{agentFailure}, ""},
		"another kind":   {framed([]byte{signResponse, 1}), []byte{agentFailure}, ""},
		"a failure+":     {framed([]byte{agentFailure, 1}), []byte{agentFailure}, ""},
		"nothing":        {framed(nil), nil, "a message of 0 bytes"},
		"too large":      {[]byte{0, 4, 0, 1}, nil, "a message of 262145 bytes"},
		"the largest":    {framed(append([]byte{identitiesAnswer}, make([]byte, request.MaxAgentMessage-1)...)), append([]byte{identitiesAnswer}, make([]byte, request.MaxAgentMessage-1)...), ""},
		"it hangs up":    {nil, nil, "EOF"},
		"in the middle":  {[]byte{0, 0}, nil, "unexpected EOF"},
		"in the message": {[]byte{0, 0, 0, 9, identitiesAnswer}, nil, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAgent(t, func([]byte) []byte { return tt.reply })
			sink := &events{}
			s := open(t, sink, f.path)
			for range 2 {
				reply, err := s.Agent(t.Context(), "a", []byte{requestIdentities})
				if !bytes.Equal(reply, tt.want) || (err == nil) != (tt.want != nil) {
					t.Errorf("reply %.20x, %v", reply, err)
				}
				if err != nil && (!errors.Is(err, errAgent) || strings.Contains(err.Error(), f.path)) {
					t.Errorf("the other side learns %v", err)
				}
			}
			got := sink.texts(request.EventWarning)
			if tt.told == "" && len(got) == 0 || len(got) == 1 && got[0] == "SSH agent a: "+tt.told {
				return
			}
			t.Errorf("told %q, want %q", got, tt.told)
		})
	}
}

// TestAgentIsWaitedFor until the build ends, and no longer.
func TestAgentIsWaitedFor(t *testing.T) {
	asked := make(chan struct{})
	f := newFakeAgent(t, func([]byte) []byte {
		close(asked)
		<-t.Context().Done()
		return nil
	})
	sink := &events{}
	s := open(t, sink, f.path)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.Agent(ctx, "a", []byte{requestIdentities})
		ended <- err
	}()
	<-asked
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, errAgent) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is waited for still")
	}
	if got := sink.texts(request.EventWarning); len(got) > 0 {
		t.Errorf("told %q", got)
	}
}

// keyFile writes a private key.
func keyFile(t testing.TB, key any, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKeys(t testing.TB) (ed, ec, rs any) {
	t.Helper()
	_, one, err1 := ed25519.GenerateKey(rand.Reader)
	two, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	three, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return one, two, three
}

// TestKeyring has a client of the protocol talk with keys from files.
func TestKeyring(t *testing.T) {
	ed, ec, rs := newKeys(t)
	s := open(t, &events{}, keyFile(t, ed, ""), keyFile(t, ec, ""), keyFile(t, rs, ""))
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		for {
			message, err := readMessage(there)
			if err != nil {
				return
			}
			reply, err := s.Agent(context.Background(), "a", message)
			if err != nil {
				return
			}
			there.Write(framed(reply))
		}
	}()
	client := agent.NewClient(here)
	keys, err := client.List()
	if err != nil || len(keys) != 3 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		for flags, format := range map[agent.SignatureFlags]string{
			0: ssh.KeyAlgoRSA, agent.SignatureFlagRsaSha256: ssh.KeyAlgoRSASHA256, agent.SignatureFlagRsaSha512: ssh.KeyAlgoRSASHA512,
		} {
			signature, err := client.SignWithFlags(k, []byte("data"), flags)
			if err != nil {
				t.Errorf("%s: %v", k.Type(), err)
				continue
			}
			if k.Type() != ssh.KeyAlgoRSA {
				format = k.Type()
			}
			public, err := ssh.ParsePublicKey(k.Blob)
			if err != nil || signature.Format != format || public.Verify([]byte("data"), signature) != nil {
				t.Errorf("%s, flags %d: signature %s, %v", k.Type(), flags, signature.Format, err)
			}
		}
	}
	other, err := ssh.NewPublicKey(mustKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Sign(other, []byte("data")); err == nil {
		t.Error("signed by a key that is not there")
	}
}

func mustKey(t testing.TB) ed25519.PrivateKey {
	ed, _, _ := newKeys(t)
	return ed.(ed25519.PrivateKey)
}

func TestAgentsThatCannotBe(t *testing.T) {
	f := newFakeAgent(t, nil)
	ended := filepath.Join(filepath.Dir(f.path), "ended")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ended})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	key := keyFile(t, mustKey(t), "")
	locked := keyFile(t, mustKey(t), "secret")
	text := write(t, "text", 100, 0o600)
	for _, tt := range []struct {
		paths []string
		want  string
	}{
		{nil, "no socket and no key"},
		{[]string{"/missing"}, "/missing: no such file or directory"},
		{[]string{f.path, key}, "want one socket, or files with keys"},
		{[]string{f.path, f.path}, "want one socket, or files with keys"},
		{[]string{ended}, "connect to the agent: dial unix " + ended + ": connect: connection refused"},
		{[]string{locked}, locked + ": the key has a passphrase: give it to an agent with ssh-add, and lend the agent"},
		{[]string{text}, text + ": not a private key"},
		{[]string{key, "/"}, "/: not a regular file"},
		{[]string{write(t, "long", maxKey+1, 0o600)}, "larger than 102400 bytes"},
	} {
		_, err := Open(Lent{Agents: []Agent{{ID: "a", Paths: tt.paths}}}, noEnv, &events{})
		if err == nil || !strings.HasPrefix(err.Error(), "SSH agent a: ") || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.paths, err, tt.want)
		}
	}
}

// FuzzAgent lets a step say anything to an agent and to a keyring.
func FuzzAgent(f *testing.F) {
	ed, _, _ := newKeys(f)
	signer, err := ssh.NewSignerFromKey(ed)
	if err != nil {
		f.Fatal(err)
	}
	key := keyFile(f, ed, "")
	f.Add([]byte{requestIdentities})
	f.Add(signing(string(signer.PublicKey().Marshal()), "data", 0, 0, 0, 2))
	f.Add(signing("", "", 0, 0, 0, 0))
	f.Add([]byte{17, 0, 0, 0, 0})
	f.Add([]byte{signRequest, 0xff, 0xff, 0xff, 0xff})
	// What reaches an agent is one of two kinds.
	passed := func(_ context.Context, message []byte) ([]byte, error) {
		if message[0] != requestIdentities && message[0] != signRequest || len(message) > request.MaxAgentMessage {
			return nil, errors.New("passed")
		}
		return failure(), nil
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		s := open(t, &events{}, key)
		s.agents["fake"] = passed
		for _, id := range []string{"a", "fake"} {
			reply, err := s.Agent(t.Context(), id, message)
			if err != nil || len(reply) == 0 || !slices.Contains([]byte{agentFailure, identitiesAnswer, signResponse}, reply[0]) {
				t.Errorf("%s: %x: %x, %v", id, message, reply, err)
			}
		}
	})
}
