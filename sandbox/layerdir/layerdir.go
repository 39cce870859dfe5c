package layerdir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

const (
	imageSuffix = ".erofs"
	blobSuffix  = ".blob"
	noteSuffix  = ".json"
	maxNote     = 4096 // bytes
	// maxHeld is how many images one build holds; the most recently used ones.
	maxHeld = 512
)

// keyForm is the key of an image; that of a blob begins with blobPrefix.
var keyForm = regexp.MustCompile(`^(step-)?[0-9a-f]{64}-[0-9a-f]{64}$|^blob-[0-9a-f]{64}$`)

const (
	blobPrefix = "blob-"
	stepPrefix = "step-"
)

// ErrForm is wrapped when a key is none.
var ErrForm = errors.New("malformed key of a layer")

// CheckKey fails if key cannot be that of a layer.
func CheckKey(key string) error {
	if !keyForm.MatchString(key) {
		return fmt.Errorf("%w: %.140q", ErrForm, key)
	}
	return nil
}

// Dir is a directory with images. It may be used by several processes, and by
// several goroutines.
type Dir struct {
	path  string
	limit int64
	boot  string
}

// Open makes the directory at path, if it is not there, for images of limit bytes
// together, and removes what writers that died left in it. boot identifies the
// time since the machine started.
func Open(path string, limit int64, boot string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("layer images: %w", err)
	}
	d := &Dir{path: path, limit: limit, boot: boot}
	return d, d.sweep()
}

// sweep removes what writers that died left: files without their names, and notes
// without their images.
func (d *Dir) sweep() error {
	err := whole.Sweep(d.path, 0)
	if err == nil {
		err = whole.Locked(d.path, d.dropNotes)
	}
	if err != nil {
		return fmt.Errorf("layer images: %w", err)
	}
	return nil
}

// dropNotes removes the notes that are of nothing.
func (d *Dir) dropNotes() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), noteSuffix)
		if !ok || !keyForm.MatchString(key) {
			continue
		}
		if _, err := os.Lstat(d.file(key)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(d.noteOf(key)) // it is found again next time
		}
	}
	return nil
}

// note is what is known about an image. Boot and Inode say when, and of which file,
// somebody has known that the digest is right.
type note struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Boot   string `json:"boot"`
	Inode  uint64 `json:"inode"`
}

// Image is an image that is held: it stays until Close.
type Image struct {
	Key   string
	Path  string
	file  *os.File
	dir   *Dir
	note  note
	inode uint64
}

// Size is the size of the image in bytes.
func (i *Image) Size() int64 { return i.note.Size }

// Close lets go of the image.
func (i *Image) Close() error { return i.file.Close() }

// Hold returns the images of base layers that there are, the most recently used first, at most
// 512. What is damaged is left out.
func (d *Dir) Hold() ([]*Image, error) {
	list, err := d.list()
	if err != nil {
		return nil, err
	}
	var held []*Image
	for _, f := range list {
		if len(held) == maxHeld {
			break
		}
		if f.key == "" || strings.HasPrefix(f.key, blobPrefix) || strings.HasPrefix(f.key, stepPrefix) {
			continue
		}
		if i, err := d.open(f.key); err == nil {
			held = append(held, i)
		}
	}
	return held, nil
}

// Open holds one image or blob.
func (d *Dir) Open(key string) (*Image, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	return d.open(key)
}

// openWhole holds one that is there and not damaged.
func (d *Dir) openWhole(key string) (*Image, error) {
	i, err := d.open(key)
	if err != nil {
		return nil, err
	}
	if err := i.Use(); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// file is where an image or a blob lies.
func (d *Dir) file(key string) string {
	if strings.HasPrefix(key, blobPrefix) {
		return filepath.Join(d.path, key+blobSuffix)
	}
	return filepath.Join(d.path, key+imageSuffix)
}

// open takes a lock on an image and reads what is known about it.
func (d *Dir) open(key string) (*Image, error) {
	f, err := os.OpenFile(d.file(key), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	i := &Image{Key: key, Path: f.Name(), file: f, dir: d}
	if err := i.check(); err != nil {
		f.Close()
		return nil, fmt.Errorf("layer image %s: %w", key, err)
	}
	return i, nil
}

var errDamaged = errors.New("it is damaged")

func (i *Image) check() error {
	if err := unix.Flock(int(i.file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return err
	}
	own, err := i.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(i.Path)
	if err != nil || !os.SameFile(own, there) || !own.Mode().IsRegular() {
		return fs.ErrNotExist // it was removed before the lock was there
	}
	i.inode = inodeOf(own)
	b, err := readNote(i.dir.noteOf(i.Key))
	if err != nil {
		return err
	}
	if json.Unmarshal(b, &i.note) != nil || i.note.Size != own.Size() {
		return errDamaged
	}
	return nil
}

func (d *Dir) noteOf(key string) string { return filepath.Join(d.path, key+noteSuffix) }

func readNote(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxNote))
}

// Use makes an image fit to be mounted: it notes the time, and computes the digest
// of one that nobody has used since the machine started. One that is damaged is
// removed, and the error says so.
func (i *Image) Use() error {
	if i.note.Boot != i.dir.boot || i.note.Inode != i.inode {
		sum := sha256.New()
		if err := digest(sum, i); err != nil {
			return fmt.Errorf("layer image %s: %w", i.Key, err)
		}
		if hex.EncodeToString(sum.Sum(nil)) != i.note.SHA256 {
			err := whole.Locked(i.dir.path, i.removeOwn)
			return errors.Join(fmt.Errorf("layer image %s: %w", i.Key, errDamaged), err)
		}
		if err := whole.Locked(i.dir.path, i.noteChecked); err != nil {
			return fmt.Errorf("layer image %s: %w", i.Key, err)
		}
	}
	now := time.Now()
	if err := os.Chtimes(i.Path, now, now); err != nil {
		return fmt.Errorf("layer image %s: %w", i.Key, err)
	}
	return nil
}

// isThere tells whether the image has its name still: it is no other's, and not gone.
func (i *Image) isThere() bool {
	there, err := os.Lstat(i.Path)
	return err == nil && inodeOf(there) == i.inode
}

func (i *Image) removeOwn() error {
	if i.isThere() {
		i.dir.remove(i.Key)
	}
	return nil
}

func (i *Image) noteChecked() error {
	i.note.Boot, i.note.Inode = i.dir.boot, i.inode
	if !i.isThere() {
		return nil // another one has come in its place, with its own note
	}
	return i.dir.write(i.Key, i.note)
}

func inodeOf(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}

// digest hashes an image in the order in which it came: the first block last; and a
// blob as it is.
func digest(sum io.Writer, i *Image) error {
	size, first := i.note.Size, int64(firstBlock)
	if strings.HasPrefix(i.Key, blobPrefix) {
		first = 0
	}
	if _, err := io.Copy(sum, io.NewSectionReader(i.file, first, size-first)); err != nil {
		return err
	}
	_, err := io.Copy(sum, io.NewSectionReader(i.file, 0, first))
	return err
}

// write puts down what is known about an image.
func (d *Dir) write(key string, n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("layer image: %w", err)
	}
	return d.put(b, d.noteOf(key))
}

// remove removes an image and its note, while the directory is locked.
func (d *Dir) remove(key string) {
	// What cannot be removed is found again next time.
	_ = os.Remove(d.file(key))
	_ = os.Remove(d.noteOf(key))
}
