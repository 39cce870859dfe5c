package plan

import (
	"errors"
	"fmt"
	"path"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// mounts are the --mount options of a RUN.
func (m *maker) mounts(d *draft, c command, i *instructions.RunCommand) ([]Mount, error) {
	var list []Mount
	ssh := 0
	for n, im := range instructions.GetMounts(i) {
		out := Mount{
			Type:     string(im.Type),
			From:     From{Kind: FromScratch},
			ReadOnly: im.ReadOnly,
			Required: im.Required,
			Mode:     toUint32(im.Mode), UID: toUint32(im.UID), GID: toUint32(im.GID),
		}
		// Whatever the type, from makes the stage one that comes before.
		if src := c.sources[n]; src != nil && !src.done {
			return nil, fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", im.From, im.Target)
		}
		var err error
		switch im.Type {
		case instructions.MountTypeSecret:
			err = secretMount(d, im, &out)
		case instructions.MountTypeSSH:
			err = sshMount(d, im, &out, ssh)
			ssh++
		case instructions.MountTypeTmpfs:
			out.Size = im.SizeLimit
			out.Target, err = mountTarget(d, im.Target)
		case instructions.MountTypeBind:
			err = sourceMount(d, im, &out, c.sources[n])
		case instructions.MountTypeCache:
			out.ID, out.Sharing = im.CacheID, string(im.CacheSharing)
			if out.ID == "" {
				out.ID = path.Clean(im.Target)
			}
			if out.Sharing == "" {
				out.Sharing = string(instructions.MountSharingShared)
			}
			err = sourceMount(d, im, &out, c.sources[n])
		default:
			err = fmt.Errorf("unsupported mount type %q", im.Type)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, out)
	}
	return list, nil
}

// sourceMount fills in a mount that shows files: of the build context, if it is
// a bind mount without from.
func sourceMount(d *draft, im *instructions.Mount, out *Mount, src *draft) error {
	switch {
	case src != nil:
		out.From = src.from()
	case im.From == "" && im.Type == instructions.MountTypeBind:
		out.From = From{Kind: FromContext}
	}
	out.Source = path.Join("/", im.Source)
	var err error
	out.Target, err = mountTarget(d, im.Target)
	return err
}

// mountTarget makes a target absolute.
func mountTarget(d *draft, target string) (string, error) {
	if !path.IsAbs(target) {
		target = path.Join("/", d.cwd(), target)
	}
	if target = path.Clean(target); target == "/" {
		return "", fmt.Errorf("invalid mount target %q", target)
	}
	return target, nil
}

// secretMount fills in a secret: a file at its target, by default below
// /run/secrets, or a variable, or both.
func secretMount(d *draft, im *instructions.Mount, out *Mount) error {
	out.ID = im.CacheID
	if im.Source != "" {
		out.ID = im.Source
	}
	if out.ID == "" && im.Target == "" {
		return errors.New("one of source, target required")
	}
	if out.ID == "" {
		out.ID = path.Base(im.Target)
	}
	target := im.Target
	if im.Env != nil {
		// Without a value the variable is called like the secret.
		if out.Env = *im.Env; out.Env == "" {
			out.Env = out.ID
		}
	} else if target == "" {
		target = "/run/secrets/" + path.Base(out.ID)
	}
	owned(out, 0o400)
	if target == "" {
		return nil
	}
	var err error
	out.Target, err = mountTarget(d, target)
	return err
}

// sshMount fills in the nth socket of an agent.
func sshMount(d *draft, im *instructions.Mount, out *Mount, n int) error {
	if im.Source != "" {
		return errors.New("ssh does not support source")
	}
	if out.ID = im.CacheID; out.ID == "" {
		out.ID = "default"
	}
	if n == 0 {
		if _, ok := d.env.Get("SSH_AUTH_SOCK"); !ok {
			out.Env = "SSH_AUTH_SOCK"
		}
	}
	target := im.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	owned(out, 0o600)
	var err error
	out.Target, err = mountTarget(d, target)
	return err
}

// owned sets what was not given: root's, with the mode.
func owned(m *Mount, mode uint32) {
	var root uint32
	if m.Mode == nil {
		m.Mode = &mode
	}
	if m.UID == nil {
		m.UID = &root
	}
	if m.GID == nil {
		m.GID = &root
	}
}

// toUint32 narrows a number that was parsed with 32 bits.
func toUint32(p *uint64) *uint32 {
	if p == nil {
		return nil
	}
	n := uint32(*p)
	return &n
}
