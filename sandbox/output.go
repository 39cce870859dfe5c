package sandbox

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Limits of what comes out.
const (
	maxBlobs = 4096
	maxIndex = 4 << 20 // bytes
)

// stagedPrefix begins the names of files and directories that are not complete
// yet. They lie beside their final places, so that a rename completes them.
const stagedPrefix = ".kbuild-sandbox-"

var errOutput = errors.New("output refused")

// outputs writes what the executor hands out under temporary names, and gives
// all of it its names when the build has succeeded.
type outputs struct {
	journal *os.File // see stagingName
	left    int64    // bytes that may still come
	made    []string // directories that did not exist, outermost first

	tar     string // temporary file, or ""
	tarPath string
	layout  string // temporary directory, or ""
	layDir  string
	blobs   map[string]bool // hex digests in layout
	index   bool
	hasTar  bool

	caches *caches // nil: nothing is kept

	open map[uint32]*stream
}

// stream is an output that is open.
type stream struct {
	what request.Output
	f    *os.File
	w    *bufio.Writer
	sum  hash.Hash
	n    int64
	max  int64

	cache *keptLayer // instead of a file of its own
}

// openOutputs makes the temporary places, so that a place that cannot be
// written is known before the build.
func openOutputs(c Outputs, dir string) (_ *outputs, err error) {
	o := &outputs{tarPath: c.TarPath, layDir: c.LayoutDir, left: c.Limit, blobs: map[string]bool{}, open: map[uint32]*stream{}}
	if o.journal, err = os.OpenFile(filepath.Join(dir, stagingName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("prepare outputs: %w", err)
	}
	defer func() {
		if err != nil {
			o.discard()
			err = fmt.Errorf("prepare outputs: %w", err)
		}
	}()
	if c.TarPath != "" {
		if err := o.openTar(c.TarPath); err != nil {
			return nil, err
		}
	}
	if c.LayoutDir != "" {
		if err := o.openLayout(c.LayoutDir); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *outputs) openTar(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	dir := filepath.Dir(path)
	if err := o.mkdir(dir); err != nil {
		return err
	}
	if err := o.bound(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, stagedPrefix+"*")
	if err != nil {
		return err
	}
	o.tar = f.Name()
	return errors.Join(o.note(o.tar), f.Chmod(0o644), f.Close())
}

func (o *outputs) openLayout(dir string) error {
	if err := o.mkdir(dir); err != nil {
		return err
	}
	if err := o.bound(dir); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, stagedPrefix+"*")
	if err != nil {
		return err
	}
	o.layout = tmp
	return o.note(tmp)
}

// bound lowers the limit to what dir's disk has.
func (o *outputs) bound(dir string) error {
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if o.left <= 0 || o.left > free-margin {
		o.left = max(free-margin, 0)
	}
	return nil
}

// mkdir makes dir and remembers what did not exist.
func (o *outputs) mkdir(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			return err
		}
		missing = append([]string{d}, missing...)
	}
	for _, d := range missing {
		if err := errors.Join(o.note(d), os.Mkdir(d, 0o755)); err != nil {
			return err
		}
		o.made = append(o.made, d)
	}
	return nil
}

// note writes a path to the journal for the case that the launcher is killed.
func (o *outputs) note(path string) error {
	_, err := o.journal.WriteString(path + "\x00")
	return err
}

// removeStaged removes what a killed launcher's journal names: temporary files
// and directories, and directories that are empty.
func removeStaged(journal string) {
	b, err := os.ReadFile(journal)
	if err != nil {
		return
	}
	paths := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	for i := len(paths) - 1; i >= 0; i-- {
		if p := paths[i]; filepath.IsAbs(p) && strings.HasPrefix(filepath.Base(p), stagedPrefix) {
			os.RemoveAll(p)
		} else if filepath.IsAbs(p) {
			dropIfEmpty(p)
		}
	}
}

// dropIfEmpty removes a directory without content; a file it never touches.
func dropIfEmpty(path string) {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		_ = os.Remove(path)
	}
}

// begin opens the next output.
func (o *outputs) begin(what request.Output) error {
	if o.open[what.Stream] != nil || len(o.open) >= request.MaxStreams {
		return fmt.Errorf("%w: stream %d of %d", errOutput, what.Stream, len(o.open))
	}
	if what.Kind == request.OutputCache {
		layer, err := o.caches.begin(what)
		if err != nil {
			return err
		}
		o.open[what.Stream] = &stream{what: what, cache: layer}
		return nil
	}
	if what.Size < 0 || what.Size > o.left {
		return fmt.Errorf("%w: %d bytes announced, %d are left", errOutput, what.Size, o.left)
	}
	s := &stream{what: what, sum: sha256.New(), max: o.left}
	path, err := o.place(what)
	if err != nil {
		return err
	}
	if what.Size > 0 {
		s.max = what.Size
	}
	if what.Kind == request.OutputIndex {
		s.max = min(s.max, maxIndex)
	}
	if s.f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	s.w = bufio.NewWriterSize(s.f, 1<<20)
	o.open[what.Stream] = s
	return nil
}

// digestForm is a digest as the launcher takes one; the hex part becomes a file
// name.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// place returns the temporary file of an output that was asked for.
func (o *outputs) place(what request.Output) (string, error) {
	switch what.Kind {
	case request.OutputTar:
		if o.tar == "" || o.hasTar {
			break
		}
		return o.tar, nil
	case request.OutputBlob:
		if o.layout == "" || o.index {
			break
		}
		if !digestForm.MatchString(what.Digest) {
			return "", fmt.Errorf("%w: digest %.80q", errOutput, what.Digest)
		}
		if len(o.blobs) >= maxBlobs {
			return "", fmt.Errorf("%w: more than %d blobs", errOutput, maxBlobs)
		}
		return filepath.Join(o.layout, strings.TrimPrefix(what.Digest, "sha256:")), nil
	case request.OutputIndex:
		if o.layout == "" || o.index {
			break
		}
		return filepath.Join(o.layout, "index.json"), nil
	}
	return "", fmt.Errorf("%w: %.20q was not asked for, or came twice", errOutput, what.Kind)
}

// write takes a chunk of an open output.
func (o *outputs) write(stream uint32, p []byte) error {
	s := o.open[stream]
	if s == nil {
		return fmt.Errorf("%w: bytes without an output", errOutput)
	}
	if s.cache != nil {
		return s.cache.write(p)
	}
	if s.n += int64(len(p)); s.n > s.max {
		return fmt.Errorf("%w: %s has more than %d bytes", errOutput, s.what.Kind, s.max)
	}
	o.left -= int64(len(p))
	s.sum.Write(p)
	if _, err := s.w.Write(p); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// end closes an open output and checks it.
func (o *outputs) end(e request.OutputEnd) error {
	s := o.open[e.Stream]
	if s == nil {
		return fmt.Errorf("%w: end without an output", errOutput)
	}
	delete(o.open, e.Stream)
	if s.cache != nil {
		return s.cache.end()
	}
	if err := errors.Join(s.w.Flush(), s.f.Close()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if s.what.Size > 0 && s.n != s.what.Size {
		return fmt.Errorf("%w: %s has %d bytes instead of %d", errOutput, s.what.Kind, s.n, s.what.Size)
	}
	switch s.what.Kind {
	case request.OutputBlob:
		got := hex.EncodeToString(s.sum.Sum(nil))
		if "sha256:"+got != s.what.Digest {
			return fmt.Errorf("%w: blob %s has digest sha256:%s", errOutput, s.what.Digest, got)
		}
		o.blobs[got] = true
	case request.OutputIndex:
		b, err := os.ReadFile(s.f.Name())
		if err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		if !json.Valid(b) {
			return fmt.Errorf("%w: index.json is not JSON", errOutput)
		}
		o.index = true
	case request.OutputTar:
		o.hasTar = true
	}
	return nil
}

// commit gives everything its name: what refers to something after what it
// refers to, index.json last.
func (o *outputs) commit() error {
	if len(o.open) > 0 || (o.tar != "" && !o.hasTar) || (o.layout != "" && !o.index) {
		return fmt.Errorf("%w: the build succeeded without handing out all that was asked for", errOutput)
	}
	if o.tar != "" {
		if err := os.Rename(o.tar, o.tarPath); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		o.tar = ""
	}
	if o.layout != "" {
		if err := o.commitLayout(); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	o.made = nil
	return nil
}

func (o *outputs) commitLayout() error {
	dir, err := os.OpenRoot(o.layDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	tmp := filepath.Base(o.layout)
	const version = `{"imageLayoutVersion":"1.0.0"}`
	if err := dir.WriteFile(filepath.Join(tmp, "oci-layout"), []byte(version), 0o644); err != nil {
		return err
	}
	if err := dir.MkdirAll("blobs/sha256", 0o755); err != nil {
		return err
	}
	for hex := range o.blobs {
		if err := dir.Rename(filepath.Join(tmp, hex), filepath.Join("blobs/sha256", hex)); err != nil {
			return err
		}
	}
	for _, name := range []string{"oci-layout", "index.json"} {
		if err := dir.Rename(filepath.Join(tmp, name), name); err != nil {
			return err
		}
	}
	o.layout = ""
	return dir.RemoveAll(tmp)
}

// discard removes what was not committed.
func (o *outputs) discard() error {
	var errs []error
	for _, s := range o.open {
		if s.cache != nil {
			s.cache.discard()
		} else {
			s.f.Close()
		}
	}
	if o.tar != "" {
		errs = append(errs, os.Remove(o.tar))
	}
	if o.layout != "" {
		errs = append(errs, os.RemoveAll(o.layout))
	}
	for i := len(o.made) - 1; i >= 0; i-- {
		dropIfEmpty(o.made[i])
	}
	errs = append(errs, o.journal.Close())
	return errors.Join(errs...)
}

// copyTail keeps the last bytes of what a pipe brings.
type copyTail struct {
	buf  []byte
	size int
}

func (t *copyTail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if n := len(t.buf); n > 2*t.size {
		t.buf = append(t.buf[:0], t.buf[n-t.size:]...)
	}
	return len(p), nil
}

func (t *copyTail) text() string {
	b := t.buf
	if len(b) > t.size {
		b = b[len(b)-t.size:]
	}
	return printable(string(b))
}

var _ io.Writer = (*copyTail)(nil)
