package secrets

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// maxKey bounds a file with a private key, in bytes, as in BuildKit.
const maxKey = 100 << 10

// Flags of a request for a signature: which one is wanted of an RSA key
// (RFC 8332; draft-miller-ssh-agent, section 5.3).
const (
	rsaSHA256 = 2
	rsaSHA512 = 4
)

// keyring is an agent in this process.
type keyring []ssh.Signer

// newKeyring is an agent that has the keys of files.
func newKeyring(files []string) (exchange, error) {
	var ring keyring
	for _, file := range files {
		data, err := readFile(file, maxKey)
		if err != nil {
			return nil, err
		}
		signer, err := ssh.ParsePrivateKey(data)
		clear(data)
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return nil, fmt.Errorf("%s: the key has a passphrase: give it to an agent with ssh-add, and lend the agent", file)
		case err != nil:
			return nil, fmt.Errorf("%s: not a private key", file) // the error may quote it
		}
		ring = append(ring, signer)
	}
	return ring.answer, nil
}

// answer answers a message that is permitted.
func (r keyring) answer(_ context.Context, message []byte) ([]byte, error) {
	if message[0] == requestIdentities {
		return r.list(), nil
	}
	blob, rest, _ := cutString(message[1:])
	data, rest, ok := cutString(rest)
	if !ok || len(rest) != 4 {
		return failure(), nil
	}
	for _, signer := range r {
		if bytes.Equal(signer.PublicKey().Marshal(), blob) {
			return sign(signer, data, binary.BigEndian.Uint32(rest)), nil
		}
	}
	return failure(), nil
}

// list is the answer to a request for the keys: each with a comment, here empty.
func (r keyring) list() []byte {
	out := binary.BigEndian.AppendUint32([]byte{identitiesAnswer}, uint32(len(r)))
	for _, signer := range r {
		out = appendString(out, signer.PublicKey().Marshal())
		out = appendString(out, nil)
	}
	return out
}

// sign signs as an agent does; flags are for RSA keys only.
func sign(signer ssh.Signer, data []byte, flags uint32) []byte {
	algorithm := signer.PublicKey().Type()
	if algorithm == ssh.KeyAlgoRSA {
		switch {
		case flags&rsaSHA512 != 0:
			algorithm = ssh.KeyAlgoRSASHA512
		case flags&rsaSHA256 != 0:
			algorithm = ssh.KeyAlgoRSASHA256
		}
	}
	with, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return failure()
	}
	signature, err := with.SignWithAlgorithm(rand.Reader, data, algorithm)
	if err != nil {
		return failure()
	}
	return appendString([]byte{signResponse}, ssh.Marshal(signature))
}

// appendString appends s as cutString takes it off.
func appendString(out, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(out, uint32(len(s))), s...)
}
