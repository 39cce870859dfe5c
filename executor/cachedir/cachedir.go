package cachedir

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
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

// Errors that are no fault of the disk.
var (
	// ErrDamaged: what is kept of a cache cannot be used.
	ErrDamaged = errors.New("damaged")
	// ErrStale: the state that a layer lies on is no longer the newest.
	ErrStale = errors.New("another build has changed the cache meanwhile")
	// ErrTooLarge: a layer has more bytes than all caches together may have.
	ErrTooLarge = errors.New("larger than all cache mounts together may be")
	// ErrForm: a key or digest that is none.
	ErrForm = errors.New("malformed")
)

const (
	// MaxLayers is how many layers a cache may have. Who hands them out should
	// begin anew long before.
	MaxLayers = 64

	maxIndex  = 64 << 10 // bytes
	indexName = "index.json"
)

// Key names a cache: 64 hexadecimal digits.
type Key string

var hexForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// KeyOf is the key of the cache called name.
func KeyOf(name string) Key {
	sum := sha256.Sum256([]byte(name))
	return Key(hex.EncodeToString(sum[:]))
}

func (k Key) check() error {
	if !hexForm.MatchString(string(k)) {
		return fmt.Errorf("%w: key %.80q", ErrForm, string(k))
	}
	return nil
}

// Layer is one layer of a cache: a tar, compressed or not.
type Layer struct {
	Digest string `json:"digest"` // sha256:<hex>
	Size   int64  `json:"size"`   // bytes
}

// hexOf is the digest's hex part, the name of its file.
func hexOf(digest string) (string, error) {
	h, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !hexForm.MatchString(h) {
		return "", fmt.Errorf("%w: digest %.80q", ErrForm, digest)
	}
	return h, nil
}

// State is a cache at some time. The zero State is that of a cache that is not
// there.
type State struct {
	Layers []Layer   `json:"layers"` // the lowest first
	Used   time.Time `json:"used"`
}

// Chain identifies the contents: the digest of the list of layers; empty if
// there are none.
func (s State) Chain() string {
	if len(s.Layers) == 0 {
		return ""
	}
	sum := sha256.New()
	for _, l := range s.Layers {
		io.WriteString(sum, l.Digest+"\n")
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

func (s State) size() (n int64) {
	for _, l := range s.Layers {
		n += l.Size
	}
	return n
}

func (s State) check() error {
	if len(s.Layers) == 0 || len(s.Layers) > MaxLayers {
		return fmt.Errorf("%w: %d layers", ErrDamaged, len(s.Layers))
	}
	for _, l := range s.Layers {
		if _, err := hexOf(l.Digest); err != nil || l.Size < 0 {
			return fmt.Errorf("%w: layer %.80q of %d bytes", ErrDamaged, l.Digest, l.Size)
		}
	}
	return nil
}

// Dir is a directory with cache mounts. It is safe for concurrent use, also by
// several processes.
type Dir struct {
	path  string
	limit int64
}

// At returns the directory at path for reading; it need not exist.
func At(path string) *Dir { return &Dir{path: path} }

// Open makes the directory at path, if it is not there, for caches of limit
// bytes together, and removes what writers that died left in it, of at least that
// age.
func Open(path string, limit int64, abandoned time.Duration) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	d := &Dir{path: path, limit: limit}
	return d, d.sweep(abandoned)
}

func (d *Dir) sweep(age time.Duration) error {
	if err := whole.Sweep(d.path, age); err != nil {
		return fmt.Errorf("cache directory: %w", err)
	}
	return nil
}

// folder is where a cache lies. A link in its place is not followed: the
// directory may be part of a checkout, and what it leads to is not ours.
func (d *Dir) folder(key Key) (string, error) {
	dir := filepath.Join(d.path, string(key))
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%w: %s is not a directory", ErrDamaged, key)
	}
	return dir, err
}

func (d *Dir) index(key Key) string { return filepath.Join(d.path, string(key), indexName) }

// state reads the state of a cache; one that is not there has the zero State.
func (d *Dir) state(key Key) (State, error) {
	var s State
	_, err := d.folder(key)
	var f *os.File
	if err == nil {
		f, err = openFile(d.index(key))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("%w: %s: %w", ErrDamaged, indexName, err)
	}
	if err := s.check(); err != nil {
		return State{}, err
	}
	return s, nil
}

// openFile opens a regular file for reading; no link, and a pipe does not block.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrDamaged, filepath.Base(path))
	}
	return f, nil
}

// Snapshot is the state of a cache with its layers open, so that what other
// builds do to the directory from now on does not matter.
type Snapshot struct {
	State
	Files []*os.File // of State.Layers
}

// Close closes the layers.
func (s *Snapshot) Close() {
	for _, f := range s.Files {
		f.Close()
	}
}

// Take opens a cache as it is. One that is not there, or was just removed, has
// no layers; the error is ErrDamaged if its index or a layer's size is wrong.
func (d *Dir) Take(key Key) (*Snapshot, error) {
	if err := key.check(); err != nil {
		return nil, err
	}
	state, err := d.state(key)
	if err != nil {
		return nil, fmt.Errorf("read cache mount: %w", err)
	}
	s := &Snapshot{State: state}
	for _, l := range state.Layers {
		if err := s.open(d.path, key, l); err != nil {
			s.Close()
			if errors.Is(err, fs.ErrNotExist) {
				return &Snapshot{}, nil
			}
			return nil, fmt.Errorf("read cache mount: %w", err)
		}
	}
	return s, nil
}

func (s *Snapshot) open(dir string, key Key, l Layer) error {
	name, err := hexOf(l.Digest)
	if err != nil {
		return err
	}
	f, err := openFile(filepath.Join(dir, string(key), name))
	if err != nil {
		return err
	}
	s.Files = append(s.Files, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != l.Size {
		return fmt.Errorf("%w: a layer has %d bytes instead of %d", ErrDamaged, info.Size(), l.Size)
	}
	return nil
}
