package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// stagedPrefix begins the names of files and directories that are not complete
// yet. They lie beside their final places, so that a rename completes them.
const stagedPrefix = ".kbuild-sandbox-"

var errOutput = errors.New("output refused")

// outputs writes what build hands out under temporary names, and gives all of
// it its names when the build has succeeded.
type outputs struct {
	journal *os.File // see stagingName
	store   *store
	left    int64       // bytes that may still come
	full    *SpaceError // why it is no more, where that is a disk; nil: it was asked for
	disk    *disk       // of the tar
	made    []string    // directories that did not exist, outermost first

	tar     string // temporary file, or ""
	tarPath string
	layout  string // temporary directory, or ""
	layDir  string
	blobs   map[string]bool // digests of stored blobs that belong to the layout
	index   bool
	merge   bool // what a layout has stays in it
	// mayFail: a layout that cannot be written costs no more than itself. lost says why
	// it is not written.
	mayFail bool
	lost    error
	hasTar  bool
}

// stream is an output that is open.
type stream struct {
	out  *outputs
	what request.Output
	f    *os.File
	w    *bufio.Writer
	disk *disk // what it takes its room from; nil: too little to count
	n    int64
	max  int64
}

// openOutputs makes the temporary places, so that a place that cannot be
// written is known before the build.
func openOutputs(c Outputs, dir string, s *store) (_ *outputs, err error) {
	o := &outputs{store: s, tarPath: c.TarPath, layDir: c.LayoutDir, left: c.Limit, blobs: map[string]bool{}}
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
	o.tar, o.disk = f.Name(), o.store.diskOf(dir)
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
		o.full = &SpaceError{Dir: dir, Free: free, Output: true}
	}
	return nil
}

// tooMuch is the end of a build whose outputs need more bytes than are left: it
// is a disk that is too small for them, or else what it says.
func (o *outputs) tooMuch(need int64, format string, args ...any) error {
	if o.full != nil {
		e := *o.full
		e.Need = margin + min(need, 1<<62)
		return &e
	}
	return fmt.Errorf("%w: "+format, append([]any{errOutput}, args...)...)
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

// begin opens an output.
func (o *outputs) begin(what request.Output) (*stream, error) {
	if what.Size < 0 {
		return nil, fmt.Errorf("%w: %d bytes announced", errOutput, what.Size)
	}
	if what.Size > o.left {
		return nil, o.tooMuch(what.Size, "%d bytes announced, %d are left", what.Size, o.left)
	}
	s := &stream{out: o, what: what, max: o.left}
	if what.Kind == request.OutputTar {
		s.disk = o.disk
	}
	path, err := o.place(what.Kind)
	if err != nil {
		return nil, err
	}
	if what.Size > 0 {
		s.max = what.Size
	}
	if what.Kind == request.OutputIndex {
		s.max = min(s.max, maxIndex)
	}
	if s.f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return nil, fmt.Errorf("write output: %w", err)
	}
	s.w = bufio.NewWriterSize(s.f, 1<<20)
	return s, nil
}

// place returns the temporary file of an output that was asked for.
func (o *outputs) place(kind request.OutputKind) (string, error) {
	switch {
	case kind == request.OutputTar && o.tar != "" && !o.hasTar:
		return o.tar, nil
	case kind == request.OutputIndex && o.layout != "" && !o.index:
		return filepath.Join(o.layout, "index.json"), nil
	}
	return "", fmt.Errorf("%w: %.20q was not asked for, or came twice", errOutput, kind)
}

// keep makes a stored blob part of the layout.
func (o *outputs) keep(digest string) error {
	if o.layout == "" || o.index {
		return fmt.Errorf("%w: a layout was not asked for, or is complete", errOutput)
	}
	size, ok := o.store.size(digest)
	switch {
	case !ok:
		return fmt.Errorf("%w: blob %.80q is not there", errOutput, digest)
	case o.blobs[digest]:
		return nil
	case size > o.left:
		return o.tooMuch(size, "a blob of %d bytes, %d are left", size, o.left)
	}
	o.left -= size
	o.blobs[digest] = true
	return nil
}

func (s *stream) write(p []byte) error {
	if s.n += int64(len(p)); s.n > s.max {
		if s.what.Kind == request.OutputTar && s.what.Size == 0 {
			return s.out.tooMuch(s.n, "the tar has more than %d bytes", s.max)
		}
		return fmt.Errorf("%w: %s has more than %d bytes", errOutput, s.what.Kind, s.max)
	}
	if err := s.disk.take(int64(len(p))); err != nil {
		return err
	}
	s.out.left -= int64(len(p))
	if _, err := s.w.Write(p); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// end closes the output and checks it.
func (s *stream) end(e request.OutputEnd) error {
	if err := errors.Join(s.w.Flush(), s.f.Close()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if e.Dropped {
		return nil // and so it is missing
	}
	if s.what.Size > 0 && s.n != s.what.Size {
		return fmt.Errorf("%w: %s has %d bytes instead of %d", errOutput, s.what.Kind, s.n, s.what.Size)
	}
	if s.what.Kind == request.OutputTar {
		s.out.hasTar = true
		return nil
	}
	b, err := os.ReadFile(s.f.Name())
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if !json.Valid(b) {
		return fmt.Errorf("%w: index.json is not JSON", errOutput)
	}
	s.out.index = true
	return nil
}

func (s *stream) discard() { s.f.Close() }

// mediaIndex is the media type of an image index (image-spec, image-index.md).
const mediaIndex = "application/vnd.oci.image.index.v1+json"

// reroot makes root the one entry of the layout, under the name that the old one
// had, and keeps further blobs in it.
func (o *outputs) reroot(root request.Descriptor, digests []string) error {
	if o.layout == "" {
		return nil
	}
	path := filepath.Join(o.layout, "index.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var index struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType,omitempty"`
		Manifests     []struct {
			request.Descriptor
			Annotations map[string]string `json:"annotations,omitempty"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) != 1 {
		return fmt.Errorf("%w: index.json has %d entries (%w)", errOutput, len(index.Manifests), errors.Join(err))
	}
	if old := index.Manifests[0].Descriptor; old.MediaType == mediaIndex {
		delete(o.blobs, old.Digest) // root is in its place
	}
	index.Manifests[0].Descriptor = root
	if raw, err = json.Marshal(index); err != nil {
		return err
	}
	for _, d := range digests {
		o.blobs[d] = true
	}
	return os.WriteFile(path, raw, 0o644)
}

// commit gives everything its name: what refers to something after what it
// refers to, index.json last.
func (o *outputs) commit() error {
	if o.tar != "" && !o.hasTar || o.layout != "" && !o.index {
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
	if err := dir.WriteFile(filepath.Join(tmp, "oci-layout"), []byte(layoutVersion), 0o644); err != nil {
		return err
	}
	if err := dir.MkdirAll("blobs/sha256", 0o755); err != nil {
		return err
	}
	if o.merge {
		if err := mergeResults(dir, filepath.Join(tmp, "index.json")); err != nil {
			return err
		}
	}
	for digest := range o.blobs {
		hex := strings.TrimPrefix(digest, "sha256:")
		if err := o.store.output(digest, filepath.Join(o.layout, hex)); err != nil {
			return err
		}
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
