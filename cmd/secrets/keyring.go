package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKey bounds a file with a private key, in bytes, as in BuildKit.
const maxKey = 100 << 10

// newKeyring is an agent in this process that has the keys of files.
func newKeyring(files []string) (exchange, error) {
	ring := agent.NewKeyring()
	for _, file := range files {
		data, err := readFile(file, maxKey)
		if err != nil {
			return nil, err
		}
		key, err := ssh.ParseRawPrivateKey(data)
		clear(data)
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return nil, fmt.Errorf("%s: the key has a passphrase: give it to an agent with ssh-add, and lend the agent", file)
		case err != nil:
			return nil, fmt.Errorf("%s: not a private key", file) // the error may quote it
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return nil, fmt.Errorf("%s: a key that cannot be used", file)
		}
	}
	return func(_ context.Context, message []byte) ([]byte, error) { return serve(ring, message) }, nil
}

// serve has ring answer one message.
func serve(ring agent.Agent, message []byte) ([]byte, error) {
	var out bytes.Buffer
	err := agent.ServeAgent(ring, struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(framed(message)), &out})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return readMessage(&out)
}
