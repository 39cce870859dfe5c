package step

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// downloadMode is the mode of a downloaded file unless --chmod says otherwise.
const downloadMode = 0o600

// unpack extracts the file at if it is an archive, as its contents show: its
// name does not count. done is false if it is none.
func (c *copier) unpack(ctx context.Context, at beneath.Spot, dest string) (done bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(at.FD, at.Leaf, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("stat %s: %w", at.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, nil
	}
	fd, err := beneath.Openat(at.FD, at.Leaf, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", at.Name(), err)
	}
	f := os.NewFile(uintptr(fd), at.Name())
	defer f.Close()
	if done, err = c.extract(ctx, f, dest); !done || err != nil || !c.from.Collects() {
		return done, err
	}
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return true, err
	}
	if _, err := io.Copy(sum, f); err != nil {
		return true, fmt.Errorf("read %s: %w", at.Name(), err)
	}
	c.from.Took(&take.Dir{Single: true}, beneath.Entry{}, &st, string(sum.Sum(nil)))
	return true, nil
}

// extract unpacks f into dest, if it is an archive.
func (c *copier) extract(ctx context.Context, f *os.File, dest string) (done bool, err error) {
	if !layer.IsArchive(f) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	to, err := c.archiveDir(dest)
	if err != nil {
		return false, err
	}
	defer to.Close()
	opt := layer.ExtractOptions{Nodes: c.nodes}
	if c.own != nil {
		opt.Owner = &[2]uint32{c.own.uid, c.own.gid}
	}
	return true, layer.Extract(ctx, f, c.rootAt, to.Name(), opt)
}

// archiveDir finds or makes the directory that an archive goes to. --chmod does
// not count here.
func (c *copier) archiveDir(dest string) (beneath.Spot, error) {
	at, err := beneath.Resolve(c.root, dest)
	if err != nil {
		return at, err
	}
	if err := c.makeDirs(&at, len(at.Rest), parentMode); err != nil {
		at.Close()
		return at, err
	}
	return at, nil
}

// remote downloads one URL, or checks out one git repository.
func (c *copier) remote(ctx context.Context, r plan.Remote, op *plan.Copy, env Env) error {
	if r.Git != nil {
		return c.repository(ctx, *r.Git, op, env)
	}
	if env.Download == nil {
		return fmt.Errorf("ADD %s: no download in this build", r.URL)
	}
	sum, err := newChecksum(r.Checksum)
	if err != nil {
		return err
	}
	fetch := func(w io.Writer) (time.Time, error) {
		modified, err := env.Download.Download(ctx, r.URL, sum.tee(w))
		if err == nil {
			err = sum.check()
		}
		if modified.IsZero() {
			modified = time.Unix(0, 0)
		}
		return modified, err
	}
	if op.Unpack == nil || !*op.Unpack {
		return c.place(op.Dest, r.Name, downloadMode, fetch)
	}
	return c.unpackRemote(ctx, r.Name, op.Dest, env, fetch)
}

// unpackRemote keeps the download aside, since it has to be checked as a whole
// before anything of it is unpacked.
func (c *copier) unpackRemote(ctx context.Context, name, dest string, env Env, fetch func(io.Writer) (time.Time, error)) (err error) {
	dir, err := env.Space.Mkdir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f, err := os.OpenFile(filepath.Join(dir, "download"), os.O_RDWR|os.O_CREATE|os.O_EXCL, downloadMode)
	if err != nil {
		return err
	}
	defer f.Close()
	modified, err := fetch(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if done, err := c.extract(ctx, f, dest); err != nil || done {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return c.place(dest, name, downloadMode, func(w io.Writer) (time.Time, error) {
		_, err := io.Copy(w, f)
		return modified, err
	})
}

// checksum is what a download has to have.
type checksum struct {
	want string // algorithm:hex; empty: nothing
	hash hash.Hash
}

func newChecksum(want string) (checksum, error) {
	if want == "" {
		return checksum{}, nil
	}
	algorithm, sum, _ := strings.Cut(want, ":")
	s := checksum{want: want}
	switch algorithm {
	case "sha256":
		s.hash = sha256.New()
	case "sha384":
		s.hash = sha512.New384()
	case "sha512":
		s.hash = sha512.New()
	default:
		return s, fmt.Errorf("checksum %q: unsupported digest algorithm", want)
	}
	if b, err := hex.DecodeString(sum); err != nil || len(b) != s.hash.Size() || strings.ToLower(sum) != sum {
		return s, fmt.Errorf("checksum %q: invalid checksum digest", want)
	}
	return s, nil
}

func (s checksum) tee(w io.Writer) io.Writer {
	if s.hash == nil {
		return w
	}
	return io.MultiWriter(w, s.hash)
}

func (s checksum) check() error {
	if s.hash == nil {
		return nil
	}
	algorithm, _, _ := strings.Cut(s.want, ":")
	if got := algorithm + ":" + hex.EncodeToString(s.hash.Sum(nil)); got != s.want {
		return fmt.Errorf("digest mismatch %s: %s", got, s.want)
	}
	return nil
}
