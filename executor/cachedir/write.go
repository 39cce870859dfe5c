package cachedir

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

// margin is what is left of a disk for everybody else, in bytes.
const margin = 256 << 20

// Incoming is a layer that is being written. Either Commit or Discard ends it.
type Incoming struct {
	dir  *Dir
	key  Key
	want Layer
	f    *os.File
	w    *bufio.Writer
	sum  hash.Hash
	n    int64
}

// Create begins a layer of a cache, whose digest and size are known.
func (d *Dir) Create(key Key, l Layer) (*Incoming, error) {
	if err := key.check(); err != nil {
		return nil, err
	}
	if _, err := hexOf(l.Digest); err != nil {
		return nil, err
	}
	if l.Size < 0 || l.Size > d.limit {
		return nil, fmt.Errorf("%d bytes: %w", l.Size, ErrTooLarge)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return nil, fmt.Errorf("write cache mount: free space of %s: %w", d.path, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free-margin < l.Size {
		return nil, fmt.Errorf("write cache mount: %d bytes into %s, where %d are free: %w", l.Size, d.path, free, unix.ENOSPC)
	}
	f, err := whole.Create(d.path)
	if err != nil {
		return nil, fmt.Errorf("write cache mount: %w", err)
	}
	return &Incoming{dir: d, key: key, want: l, f: f, w: bufio.NewWriterSize(f, 1<<20), sum: sha256.New()}, nil
}

// Write takes bytes of the layer, no more than were announced.
func (in *Incoming) Write(p []byte) (int, error) {
	if in.n += int64(len(p)); in.n > in.want.Size {
		return 0, fmt.Errorf("write cache mount: %w: more than %d bytes", ErrForm, in.want.Size)
	}
	in.sum.Write(p)
	n, err := in.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("write cache mount: %w", err)
	}
	return n, nil
}

// Discard forgets the layer. After Commit it does nothing.
func (in *Incoming) Discard() {
	if in.f != nil {
		in.f.Close()
		os.Remove(in.f.Name())
		in.f = nil
	}
}

// Commit puts the layer on top of the state whose Chain is base; with an empty
// base it becomes all of the cache. The error is ErrForm if the bytes are not
// those that were announced, and ErrStale if base is not the newest state.
func (in *Incoming) Commit(base string) error {
	defer in.Discard()
	if err := in.w.Flush(); err != nil {
		return fmt.Errorf("write cache mount: %w", err)
	}
	if got := "sha256:" + hex.EncodeToString(in.sum.Sum(nil)); in.n != in.want.Size || got != in.want.Digest {
		return fmt.Errorf("write cache mount: %w: %d bytes with digest %s instead of %d with %s",
			ErrForm, in.n, got, in.want.Size, in.want.Digest)
	}
	return whole.Locked(in.dir.path, func() error {
		next := State{Layers: []Layer{in.want}, Used: time.Now().UTC()}
		if base != "" {
			s, err := in.dir.state(in.key)
			if err == nil && s.Chain() != base {
				err = ErrStale
			}
			if err != nil {
				return fmt.Errorf("write cache mount: %w", err)
			}
			next.Layers = append(s.Layers, in.want)
		}
		if err := next.check(); err != nil {
			return fmt.Errorf("write cache mount: %w", err)
		}
		return in.dir.put(in.key, next, in.f.Name())
	})
}

// put gives a cache its new state; file becomes its topmost layer.
func (d *Dir) put(key Key, s State, file string) error {
	dir, err := d.folder(key)
	if errors.Is(err, ErrDamaged) {
		err = os.Remove(dir)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write cache mount: %w", err)
	}
	name, err := hexOf(s.Layers[len(s.Layers)-1].Digest)
	if err != nil {
		return err
	}
	if err := os.Rename(file, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("write cache mount: %w", err)
	}
	if err := d.writeIndex(key, s); err != nil {
		return err
	}
	return d.dropOthers(key, s)
}

func (d *Dir) writeIndex(key Key, s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write cache mount: %w", err)
	}
	if err := whole.Write(d.path, d.index(key), append(b, '\n')); err != nil {
		return fmt.Errorf("write cache mount: %w", err)
	}
	return nil
}

// dropOthers removes the files of a cache that its state does not name.
func (d *Dir) dropOthers(key Key, s State) error {
	named := map[string]bool{indexName: true}
	for _, l := range s.Layers {
		name, err := hexOf(l.Digest)
		if err != nil {
			return err
		}
		named[name] = true
	}
	dir := filepath.Join(d.path, string(key))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("write cache mount: %w", err)
	}
	for _, e := range entries {
		if !named[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Touch notes that a cache in the state base was used and not changed.
func (d *Dir) Touch(key Key, base string) error {
	if err := key.check(); err != nil {
		return err
	}
	return whole.Locked(d.path, func() error {
		s, err := d.state(key)
		if err != nil || s.Chain() != base || base == "" {
			return err // of another build, which has noted its own use
		}
		s.Used = time.Now().UTC()
		return d.writeIndex(key, s)
	})
}
