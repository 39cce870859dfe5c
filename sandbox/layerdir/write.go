package layerdir

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// firstBlock is the size of the block that comes last (request.LayerBlock).
const firstBlock = 4096

// Incoming is an image that is being written. The file has room for the first
// block at its beginning.
type Incoming struct {
	dir  *Dir
	key  string
	file *os.File
	w    *bufio.Writer
	sum  hash.Hash
	n    int64
}

// Create begins an image, whose key may come as late as Commit.
func (d *Dir) Create(key string) (*Incoming, error) {
	if err := CheckKey(key); key != "" && err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(d.path, newPrefix)
	if err != nil {
		return nil, fmt.Errorf("layer image: %w", err)
	}
	i := &Incoming{dir: d, key: key, file: f, w: bufio.NewWriterSize(f, 256<<10), sum: sha256.New()}
	if _, err := f.Seek(firstBlock, io.SeekStart); err != nil {
		i.Discard()
		return nil, fmt.Errorf("layer image: %w", err)
	}
	return i, nil
}

// Write adds bytes in the order in which they come.
func (i *Incoming) Write(p []byte) (int, error) {
	i.sum.Write(p)
	n, err := i.w.Write(p)
	i.n += int64(n)
	if err != nil {
		return n, fmt.Errorf("layer image: %w", err)
	}
	return n, nil
}

// ErrSize is wrapped when what came is no image.
var ErrSize = errors.New("not a whole number of blocks")

// Commit ends the image, under key if it had none yet, and holds it. Where somebody
// else was faster, theirs is held: the two are the same.
func (i *Incoming) Commit(key string) (*Image, error) {
	if i.key == "" {
		i.key = key
	}
	if err := CheckKey(i.key); err != nil {
		i.Discard()
		return nil, err
	}
	if there, err := i.dir.open(i.key); err == nil {
		i.Discard()
		return there, nil
	}
	img, err := i.commit()
	if err != nil {
		i.Discard()
		return nil, fmt.Errorf("layer image: %w", err)
	}
	return img, nil
}

func (i *Incoming) commit() (*Image, error) {
	if i.n < 2*firstBlock || i.n%firstBlock != 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, i.n)
	}
	if err := i.w.Flush(); err != nil {
		return nil, err
	}
	first := make([]byte, firstBlock)
	if _, err := i.file.ReadAt(first, i.n); err != nil {
		return nil, err
	}
	if err := i.file.Truncate(i.n); err != nil {
		return nil, err
	}
	if _, err := i.file.WriteAt(first, 0); err != nil {
		return nil, err
	}
	if err := i.file.Chmod(0o400); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(i.file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil, err
	}
	n := note{Size: i.n, SHA256: hex.EncodeToString(i.sum.Sum(nil)), Boot: i.dir.boot}
	if err := i.dir.write(i.key, n); err != nil {
		return nil, err
	}
	if err := os.Rename(i.file.Name(), i.dir.file(i.key)); err != nil {
		return nil, err
	}
	return &Image{Key: i.key, Path: i.dir.file(i.key), file: i.file, dir: i.dir, note: n}, nil
}

// Discard drops what came.
func (i *Incoming) Discard() {
	i.file.Close()
	os.Remove(i.file.Name())
}

// Removed is what was removed.
type Removed struct {
	Layers int
	Bytes  int64
}

// Trim removes images until all together have at most the limit, the least
// recently used first.
func (d *Dir) Trim() (Removed, error) {
	list, err := d.list()
	if err != nil {
		return Removed{}, err
	}
	var kept int64
	var old []found
	for _, f := range list {
		if kept+f.size > d.limit {
			old = append(old, f)
			continue
		}
		kept += f.size
	}
	return d.drop(old), nil
}

// Prune removes the images that were last used before a time; zero: all.
func Prune(path string, before time.Time) (Removed, error) {
	d := &Dir{path: path}
	list, err := d.list()
	if err != nil {
		return Removed{}, err
	}
	forgotten := forgetAfter
	if before.IsZero() {
		forgotten = 0
	}
	if err := errors.Join(d.sweep(newPrefix+"*", abandoned), d.sweep("*"+recallSuffix, forgotten), d.sweep("*"+stepSuffix, forgotten)); err != nil {
		return Removed{}, err
	}
	var old []found
	for _, f := range list {
		if before.IsZero() || f.used.Before(before) {
			old = append(old, f)
		}
	}
	return d.drop(old), nil
}

// drop removes those images that nobody holds.
func (d *Dir) drop(list []found) (r Removed) {
	for _, f := range list {
		file, err := os.OpenFile(d.file(f.key), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			d.remove(f.key)
			r.Layers++
			r.Bytes += f.size
		}
		file.Close()
	}
	return r
}
