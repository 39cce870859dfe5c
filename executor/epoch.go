package executor

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// epochs finds the times of sources for a SOURCE_DATE_EPOCH that names one. It
// remembers them: every plan asks again.
type epochs struct {
	in    *Inputs
	space *rootfs.Space
	tools Tools

	mu    sync.Mutex
	known map[string]*time.Time
}

// ContextTime implements plan.Epochs.
func (e *epochs) ContextTime(_ context.Context, name string) (*time.Time, error) {
	if t, ok := e.in.Times[name]; ok {
		return &t, nil
	}
	if dir, ok := e.in.unpacked[name]; ok {
		return newestBelow(dir)
	}
	return nil, nil
}

// RemoteTime implements plan.Epochs: the time of a commit, else what the server
// says, else that of the newest file in an archive.
func (e *epochs) RemoteTime(ctx context.Context, r plan.Remote) (t *time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := r.Checksum + " " + r.URL
	if r.Git != nil {
		name = fmt.Sprintf("%+v", *r.Git)
	}
	if t, ok := e.known[name]; ok {
		return t, nil
	}
	dir, err := e.space.Mkdir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r.Git != nil {
		t, err = e.commitTime(ctx, *r.Git, dir)
	} else {
		t, err = e.downloadTime(ctx, r, dir)
	}
	if err != nil {
		return nil, err
	}
	if e.known == nil {
		e.known = map[string]*time.Time{}
	}
	e.known[name] = t
	return t, nil
}

func (e *epochs) commitTime(ctx context.Context, r plan.Repository, dir string) (*time.Time, error) {
	if e.tools.Git == nil {
		return nil, errors.New("no git in this build")
	}
	c, err := e.tools.Git.Checkout(ctx, buildcontext.Repository(r), dir)
	return &c.Time, err
}

func (e *epochs) downloadTime(ctx context.Context, r plan.Remote, dir string) (*time.Time, error) {
	f, err := os.OpenFile(filepath.Join(dir, "download"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	modified, err := e.tools.Download.Download(ctx, r.URL, io.MultiWriter(f, sum))
	if err != nil {
		return nil, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); r.Checksum != "" && got != r.Checksum {
		return nil, fmt.Errorf("download %s: digest mismatch %s: %s", r.Name, got, r.Checksum)
	}
	if !modified.IsZero() {
		return &modified, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return newest(ctx, f), nil
}

// newest is the latest time of a regular file in an archive; nil if r is none,
// or a broken one.
func newest(ctx context.Context, r io.Reader) *time.Time {
	d, _, err := layer.Decompress(r)
	if err != nil {
		return nil
	}
	defer d.Close()
	var latest *time.Time
	for files := tar.NewReader(d); ctx.Err() == nil; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return latest
		}
		if err != nil {
			return nil
		}
		if h.Typeflag == tar.TypeReg && (latest == nil || h.ModTime.After(*latest)) {
			latest = &h.ModTime
		}
	}
	return nil
}
