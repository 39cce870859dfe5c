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

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
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
	f, err := whole.Create(d.path)
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

// Sum is the SHA-256 of what came, in hex.
func (i *Incoming) Sum() string { return hex.EncodeToString(i.sum.Sum(nil)) }

// ErrSize is wrapped when what came is no image.
var ErrSize = errors.New("not a whole number of blocks")

// Commit ends the image, under key if it had none yet, and holds it. Where somebody
// else was faster, theirs is held, and ours false: the two are the same.
func (i *Incoming) Commit(key string) (img *Image, ours bool, err error) {
	if i.key == "" {
		i.key = key
	}
	if err := CheckKey(i.key); err != nil {
		i.Discard()
		return nil, false, err
	}
	if there, err := i.dir.openWhole(i.key); err == nil {
		i.Discard()
		return there, false, nil
	}
	if img, err = i.commit(); err != nil {
		i.Discard()
		return nil, false, fmt.Errorf("layer image: %w", err)
	}
	return img, true, nil
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
	info, err := i.file.Stat()
	if err != nil {
		return nil, err
	}
	n := note{Size: i.n, SHA256: i.Sum(), Boot: i.dir.boot, Inode: inodeOf(info)}
	if err := i.dir.place(i.key, n, i.file.Name()); err != nil {
		return nil, err
	}
	return &Image{Key: i.key, Path: i.dir.file(i.key), file: i.file, dir: i.dir, note: n, inode: n.Inode}, nil
}

// Discard drops what came.
func (i *Incoming) Discard() {
	i.file.Close()
	os.Remove(i.file.Name())
}
