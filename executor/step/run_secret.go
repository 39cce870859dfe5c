package step

import (
	"context"
	"fmt"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// maxVariable bounds NAME=value of one variable, in bytes: Linux executes no
// program with a longer one (MAX_ARG_STRLEN, with the byte that ends it).
const maxVariable = 32*4096 - 1

// secretFile is a file that only the command sees: the child writes it to a
// tmpfs of its own.
type secretFile struct {
	Data           []byte
	Mode, UID, GID uint32
}

// addSecret lends the command a secret: as a file, as a variable, or as both. A
// variable is there, and empty, where the secret is missing, as in BuildKit.
func (r *run) addSecret(ctx context.Context, m plan.Mount) error {
	value, ok, err := r.secret(ctx, m.ID)
	if err != nil {
		return err
	}
	if !ok && m.Required {
		return fmt.Errorf("secret %s: not found", m.ID)
	}
	if m.Env != "" {
		if err := r.setVariable(m.Env, value); err != nil {
			return fmt.Errorf("secret %s: %w", m.ID, err)
		}
	}
	if !ok || m.Target == "" {
		return nil
	}
	if r.config.Staging == "" {
		if r.config.Staging, err = r.mkdir(); err != nil {
			return err
		}
	}
	r.config.Mounts = append(r.config.Mounts, childMount{
		Target: m.Target, ReadOnly: true,
		Secret: &secretFile{Data: value, Mode: *m.Mode & 0o777, UID: *m.UID, GID: *m.GID},
	})
	return nil
}

// secret asks for a secret, once in a step, and forgets it with the step.
func (r *run) secret(ctx context.Context, id string) (value []byte, ok bool, err error) {
	if value, ok := r.secrets[id]; ok {
		return value, true, nil
	}
	if r.env.Secret == nil {
		return nil, false, nil
	}
	value, ok, err = r.env.Secret(ctx, id)
	if err != nil || !ok {
		return nil, false, err
	}
	if r.secrets == nil {
		r.secrets = map[string][]byte{}
	}
	r.secrets[id] = value
	r.undo = append(r.undo, func() error { clear(value); return nil })
	return value, true, nil
}

// setVariable sets a variable of the command's environment.
func (r *run) setVariable(name string, value []byte) error {
	entry := name + "=" + string(value)
	switch {
	case strings.ContainsRune(entry, 0):
		return fmt.Errorf("it has a zero byte and cannot be the variable %s: mount it as a file", name)
	case len(entry) > maxVariable:
		return fmt.Errorf("it is too large to be the variable %s: mount it as a file", name)
	}
	r.config.Env = withVariable(r.config.Env, name, entry)
	return nil
}

// withVariable is env with entry in place of what it has for name.
func withVariable(env []string, name, entry string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, name+"=") {
			env[i] = entry
			return env
		}
	}
	return append(env, entry)
}
