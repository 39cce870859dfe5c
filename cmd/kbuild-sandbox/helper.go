package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// notFound is what helpers print for a server that they do not know; it is a
// part of their protocol.
const notFound = "credentials not found in native keychain"

// tokenUser is the user name with which a helper says that the secret is an
// identity token.
const tokenUser = "<token>"

// runHelper runs docker-credential-NAME get on the host: the server goes to
// its standard input, the answer is JSON on its standard output.
func runHelper(ctx context.Context, name, server string) (request.Answer, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" {
		return request.Answer{}, fmt.Errorf("%q is not the name of a helper", name)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get")
	out, complaint := &bounded{limit: maxHelper}, &bounded{limit: 4 << 10}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), out, complaint
	// A helper is often a script: what it started must go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second

	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return request.Answer{}, errors.New("not found in PATH")
	case ctx.Err() != nil:
		return request.Answer{}, fmt.Errorf("no answer: %w", context.Cause(ctx))
	case err != nil && strings.Contains(out.String(), notFound):
		return request.Answer{}, errNoCredential
	case err != nil:
		said := strings.TrimSpace(out.String() + " " + complaint.String())
		return request.Answer{}, fmt.Errorf("%w: %s", err, progress.Clean(said))
	case out.over:
		return request.Answer{}, fmt.Errorf("answered more than %d bytes", maxHelper)
	}
	return decodeHelper(out.buf.Bytes())
}

func decodeHelper(data []byte) (request.Answer, error) {
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(data, &got); err != nil {
		return request.Answer{}, errors.New("answered no JSON") // it may hold a secret: do not quote it
	}
	switch {
	case got.Username == "" && got.Secret == "":
		return request.Answer{}, errNoCredential
	case got.Username == tokenUser:
		return request.Answer{IdentityToken: got.Secret}, nil
	}
	return request.Answer{Username: got.Username, Password: got.Secret}, nil
}

// bounded keeps the first limit bytes that are written to it.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

var _ io.Writer = (*bounded)(nil)

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.buf.Len()
	if len(p) > room {
		b.over = true
		b.buf.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return b.buf.Write(p)
}

func (b *bounded) String() string { return b.buf.String() }
