package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/sign"
)

// signWord is the hidden command that is the signer.
const signWord = "sign-statements"

// keyPassword is cosign's environment variable. It is all that the signer gets
// of the environment.
const keyPassword = "COSIGN_PASSWORD"

// signCommand is the process that has the key: the launcher starts itself.
func (a *app) signCommand() *cobra.Command {
	return &cobra.Command{
		Use: signWord, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key := func() (sign.Key, error) { return readKey(args[0], a.env) }
			return sign.Serve(a.stdin, a.stdout, key, sign.Confine)
		},
	}
}

// readKey reads a key file, with the password of the environment or of the
// terminal.
func readKey(path string, env func(string) (string, bool)) (sign.Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return sign.Key{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, sign.MaxKey+1))
	if err != nil {
		return sign.Key{}, err
	}
	if len(data) > sign.MaxKey {
		return sign.Key{}, fmt.Errorf("%s has more than %d bytes", path, sign.MaxKey)
	}
	key, err := sign.ParseKey(data, func() ([]byte, error) {
		if password, ok := env(keyPassword); ok {
			return []byte(password), nil
		}
		return askPassword(path)
	})
	if err != nil {
		return key, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// askPassword asks whoever sits at the terminal.
func askPassword(path string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("the key has a password: set " + keyPassword)
	}
	defer tty.Close()
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	// Whoever interrupts wants a terminal that echoes.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	go func() {
		if s, ok := (<-interrupted).(syscall.Signal); ok {
			_ = term.Restore(fd, state)
			os.Exit(128 + int(s))
		}
	}()
	fmt.Fprintf(tty, "Password of %s: ", progress.Clean(path))
	defer fmt.Fprintln(tty)
	return term.ReadPassword(fd)
}

// signer is a signer that was started.
type signer struct {
	*sign.Signer
	cmd    *exec.Cmd
	errors *bounded
}

// startSigner starts a signer and waits until it has its key.
func startSigner(ctx context.Context, key string, env func(string) (string, bool)) (*signer, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", signWord, key)
	cmd.Env = []string{}
	if password, ok := env(keyPassword); ok {
		cmd.Env = append(cmd.Env, keyPassword+"="+password)
	}
	cmd.Dir = "/"
	s := &signer{cmd: cmd, errors: &bounded{limit: 4 << 10}}
	cmd.Stderr = s.errors
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the signer: %w", err)
	}
	if s.Signer, err = sign.Dial(in, out); err != nil {
		if e := cmd.Wait(); e != nil {
			err = fmt.Errorf("%w (%w) %s", err, e, progress.Clean(strings.TrimSpace(s.errors.String())))
		}
		return nil, err
	}
	return s, nil
}

// close ends the signer. It has signed what it had to by then.
func (s *signer) close() {
	_ = s.Close()
	_ = s.cmd.Wait()
}

// signAll signs statements.
func (s *signer) signAll(statements [][]byte) ([][]byte, error) {
	var out [][]byte
	for _, statement := range statements {
		envelope, err := s.Sign(statement)
		if err != nil {
			return nil, err
		}
		out = append(out, bytes.TrimSpace(envelope))
	}
	return out, nil
}
