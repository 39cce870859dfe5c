package sandbox

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
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Limits of a store.
const (
	maxBlobs    = 8192
	maxIndex    = 4 << 20 // bytes of index.json, and of sources.json
	maxContexts = 1000
)

// digestForm is a digest as the launcher takes one; the hex part becomes a file
// name.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// contextForm is the name of a context that fetch hands out.
var contextForm = regexp.MustCompile(`^(` + request.FetchedDockerfile + `|` + request.FetchedMain + `|0|[1-9][0-9]{0,3})$`)

// store is the wall between the roles: a directory in OCI image-layout form
// that only the launcher writes, from what fetch and build hand out. Build and
// push see it read-only. A blob has its name from the digest that the launcher
// itself has computed.
type store struct {
	dir  string
	disk *disk // what it takes its room from

	mu       sync.Mutex
	blobs    map[string]int64 // bytes by hex digest
	contexts map[string]bool
	has      map[request.OutputKind]bool // tags, sources
}

// openStore makes an empty store.
func openStore(dir string) (*store, error) {
	for _, d := range []string{"", "blobs", "blobs/sha256", "contexts", "new"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make store: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(layoutVersion), 0o644); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	return &store{dir: dir, disk: &disk{dir: dir}, blobs: map[string]int64{}, contexts: map[string]bool{}, has: map[request.OutputKind]bool{}}, nil
}

// layoutVersion is the content of oci-layout (image-spec, image-layout.md).
const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// size returns the size of a blob in bytes.
func (s *store) size(digest string) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.blobs[strings.TrimPrefix(digest, "sha256:")]
	return n, ok && digestForm.MatchString(digest)
}

func (s *store) path(digest string) string {
	return filepath.Join(s.dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// put stores a blob of the launcher's own and returns its digest.
func (s *store) put(data []byte) (string, error) {
	in, err := s.begin(request.Output{Kind: request.OutputStored})
	if err != nil {
		return "", err
	}
	if err := in.write(data); err != nil {
		in.discard()
		return "", err
	}
	digest := in.digest()
	return digest, in.end(request.OutputEnd{Digest: digest})
}

// begin opens something for the store.
func (s *store) begin(what request.Output) (*stored, error) {
	in := &stored{store: s, what: what, sum: sha256.New(), max: what.Size}
	if what.Size < 0 {
		return nil, fmt.Errorf("%w: %d bytes announced", errOutput, what.Size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch what.Kind {
	case request.OutputStored:
		if what.Digest != "" && !digestForm.MatchString(what.Digest) {
			return nil, fmt.Errorf("%w: digest %.80q", errOutput, what.Digest)
		}
		if len(s.blobs) >= maxBlobs {
			return nil, fmt.Errorf("%w: more than %d blobs", errOutput, maxBlobs)
		}
	case request.OutputContext:
		if !contextForm.MatchString(what.Name) || s.contexts[what.Name] || len(s.contexts) > maxContexts {
			return nil, fmt.Errorf("%w: context %.80q", errOutput, what.Name)
		}
		s.contexts[what.Name] = true
	case request.OutputTags, request.OutputSources:
		if s.has[what.Kind] {
			return nil, fmt.Errorf("%w: %s come twice", errOutput, what.Kind)
		}
		s.has[what.Kind] = true
		in.max = maxIndex
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "new"), "")
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	in.f, in.w = f, bufio.NewWriterSize(f, 256<<10)
	if err := s.disk.fits(what.Size); err != nil {
		in.discard()
		return nil, err
	}
	return in, nil
}

// diskOf is what something in dir takes its room from: the run's, if it lies on the
// same file system, else that of another one.
func (s *store) diskOf(dir string) *disk {
	var here, there unix.Stat_t
	if s != nil && unix.Stat(s.dir, &here) == nil && unix.Stat(dir, &there) == nil && here.Dev == there.Dev {
		return s.disk
	}
	return &disk{dir: dir, output: true}
}

// output gives a stored blob a name outside of the store, whose owner may write to
// it: it is a copy where the file has other names than the store's, which are those
// of the layer cache, and where the two lie on different file systems.
func (s *store) output(digest, to string) error {
	size, _ := s.size(digest)
	d := s.diskOf(filepath.Dir(to))
	var st unix.Stat_t
	if err := unix.Lstat(s.path(digest), &st); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if st.Nlink > 1 {
		return copyFile(s.path(digest), to, d, size)
	}
	return linkFile(s.path(digest), to, d, size)
}

// linkFile gives a file a second name, or copies it, which takes room from d.
func linkFile(from, to string, d *disk, size int64) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return copyFile(from, to, d, size)
}

// stored is something on its way into the store.
type stored struct {
	store *store
	what  request.Output
	f     *os.File
	w     *bufio.Writer
	sum   hash.Hash
	n     int64
	max   int64 // 0: what the disk has
	taken int64 // of the disk
}

func (in *stored) digest() string { return "sha256:" + hex.EncodeToString(in.sum.Sum(nil)) }

func (in *stored) write(p []byte) error {
	in.n += int64(len(p))
	if in.max > 0 && in.n > in.max {
		return fmt.Errorf("%w: %s has more than %d bytes", errOutput, in.what.Kind, in.max)
	}
	if err := in.store.disk.take(int64(len(p))); err != nil {
		return err
	}
	in.taken += int64(len(p))
	in.sum.Write(p)
	if _, err := in.w.Write(p); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// end checks what came and gives it its name.
func (in *stored) end(e request.OutputEnd) error {
	if e.Dropped {
		in.discard()
		in.store.forget(in.what)
		return nil
	}
	if err := errors.Join(in.w.Flush(), in.f.Chmod(0o444), in.f.Close()); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	to, err := in.place(e)
	if err != nil {
		return err
	}
	if err := os.Rename(in.f.Name(), to); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// place checks what came and returns its name.
func (in *stored) place(e request.OutputEnd) (string, error) {
	if in.what.Size > 0 && in.n != in.what.Size {
		return "", fmt.Errorf("%w: %s has %d bytes instead of %d", errOutput, in.what.Kind, in.n, in.what.Size)
	}
	switch in.what.Kind {
	case request.OutputContext:
		return filepath.Join(in.store.dir, "contexts", in.what.Name), nil
	case request.OutputTags, request.OutputSources:
		b, err := os.ReadFile(in.f.Name())
		if err == nil && !json.Valid(b) {
			err = fmt.Errorf("%w: %s are not JSON", errOutput, in.what.Kind)
		}
		name := map[request.OutputKind]string{request.OutputTags: "index.json", request.OutputSources: "sources.json"}
		return filepath.Join(in.store.dir, name[in.what.Kind]), err
	}
	got := in.digest()
	for _, said := range []string{in.what.Digest, e.Digest} {
		if said != "" && said != got {
			return "", fmt.Errorf("%w: blob %.80s has digest %s", errOutput, said, got)
		}
	}
	in.store.mu.Lock()
	if old, ok := in.store.blobs[strings.TrimPrefix(got, "sha256:")]; ok {
		in.store.disk.give(old) // it takes the other's place
	}
	in.store.blobs[strings.TrimPrefix(got, "sha256:")] = in.n
	in.store.mu.Unlock()
	return in.store.path(got), nil
}

// forget lets something that was dropped come again.
func (s *store) forget(what request.Output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.contexts, what.Name)
	delete(s.has, what.Kind)
}

func (in *stored) discard() {
	in.f.Close()
	os.Remove(in.f.Name())
	in.store.disk.give(in.taken)
	in.taken = 0
}

func copyFile(from, to string, d *disk, size int64) error {
	if err := d.fits(size); err != nil {
		return err
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(copyInto(from, w), w.Close())
}

// copyInto copies a file into an open one; where the file system can, they share
// what they have until one of them changes.
func copyInto(from string, w *os.File) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = w.ReadFrom(r)
	return err
}
