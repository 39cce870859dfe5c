package sign

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxStatement bounds a statement, in bytes.
const MaxStatement = 4 << 20

// maxReply bounds a line that answers one: base64, and the rest.
const maxReply = 2 * MaxStatement

// greeting is the first line of the process: the key can be used, or why not.
type greeting struct {
	Public []byte `json:"public,omitempty"` // PEM
	Error  string `json:"error,omitempty"`
}

// reply answers one statement.
type reply struct {
	Envelope json.RawMessage `json:"envelope,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// Serve is the process that signs. key returns the key; after that, confine
// gives up everything else. Each line of in is a statement, each line of out a
// reply to it. An error that is not told on out is one of out itself.
func Serve(in io.Reader, out io.Writer, key func() (Key, error), confine func() error) error {
	k, public, err := open(key, confine)
	if err != nil {
		return writeLine(out, greeting{Error: err.Error()})
	}
	if err := writeLine(out, greeting{Public: public}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxStatement+1)
	for lines.Scan() {
		var r reply
		if r.Envelope, err = k.seal(lines.Bytes()); err != nil {
			r = reply{Error: err.Error()}
		}
		if err := writeLine(out, r); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return writeLine(out, reply{Error: fmt.Sprintf("a statement of more than %d bytes", MaxStatement)})
	}
	return lines.Err()
}

// open gets the key, and confines the process whether that succeeds or not.
func open(key func() (Key, error), confine func() error) (Key, []byte, error) {
	k, err := key()
	if err != nil {
		return k, nil, err
	}
	if err := confine(); err != nil {
		return k, nil, fmt.Errorf("confine the signer: %w", err)
	}
	public, err := k.Public()
	return k, public, err
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Signer is the launcher's end of the process.
type Signer struct {
	in     io.WriteCloser
	out    *bufio.Scanner
	public []byte
}

// Dial waits until the process has its key. Its error is what the process says
// about the key; the writer is closed then.
func Dial(in io.WriteCloser, out io.Reader) (*Signer, error) {
	s := &Signer{in: in, out: bufio.NewScanner(out)}
	s.out.Buffer(nil, maxReply)
	var hello greeting
	err := s.read(&hello)
	if err == nil && hello.Error != "" {
		err = errors.New(hello.Error)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	s.public = hello.Public
	return s, nil
}

// Public is the public key in PEM.
func (s *Signer) Public() []byte { return s.public }

// Sign returns the envelope of a statement, both as JSON.
func (s *Signer) Sign(statement []byte) ([]byte, error) {
	if len(statement) > MaxStatement {
		return nil, fmt.Errorf("sign: a statement of %d bytes, more than %d", len(statement), MaxStatement)
	}
	if bytes.IndexByte(statement, '\n') >= 0 {
		return nil, errors.New("sign: a statement has to be one line")
	}
	if _, err := s.in.Write(append(statement[:len(statement):len(statement)], '\n')); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var r reply
	if err := s.read(&r); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("sign: %s", r.Error)
	}
	return r.Envelope, nil
}

// Close ends the process.
func (s *Signer) Close() error { return s.in.Close() }

func (s *Signer) read(v any) error {
	if !s.out.Scan() {
		if err := s.out.Err(); err != nil {
			return err
		}
		return errors.New("the signer ended")
	}
	return json.Unmarshal(s.out.Bytes(), v)
}
