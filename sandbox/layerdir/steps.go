package layerdir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

const stepSuffix = ".step"

// BlobKey is the key of the blob with a digest, sha256:<hex>.
func BlobKey(digest string) string { return blobPrefix + strings.TrimPrefix(digest, "sha256:") }

// Step returns what is noted under the key of a step, 64 hex digits, or nothing.
func (d *Dir) Step(key string) ([]byte, error) {
	if !nameForm.MatchString(key) {
		return nil, nil
	}
	path := filepath.Join(d.path, key+stepSuffix)
	b, err := readNote(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	touch(path)
	return b, err
}

// PutStep notes something under the key of a step, at most 4096 bytes.
func (d *Dir) PutStep(key string, b []byte) error {
	if !nameForm.MatchString(key) || len(b) > maxNote {
		return fmt.Errorf("%w: step %.80q", ErrForm, key)
	}
	return d.put(b, filepath.Join(d.path, key+stepSuffix))
}

// DropStep removes what is noted of a step.
func (d *Dir) DropStep(key string) {
	if nameForm.MatchString(key) {
		_ = os.Remove(filepath.Join(d.path, key+stepSuffix)) // it is found again next time
	}
}

// Adopt keeps a blob that lies in a file of its own, whose digest is known to be
// right: as a second name of that, or as a copy where that is on another file system.
func (d *Dir) Adopt(digest, file string, copyFile func(from string, to *os.File) error) error {
	key := BlobKey(digest)
	if err := CheckKey(key); err != nil {
		return err
	}
	if there, err := d.openWhole(key); err == nil {
		return there.Close()
	}
	f, name, err := d.takeFile(file, copyFile)
	if err != nil {
		return fmt.Errorf("layer cache: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		n := note{Size: info.Size(), SHA256: hexOf(digest), Boot: d.boot, Inode: inodeOf(info)}
		err = d.place(key, n, name)
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("layer cache: %w", err)
	}
	return nil
}

// takeFile has a file in the directory under a name that is not its last one.
func (d *Dir) takeFile(file string, copyFile func(from string, to *os.File) error) (*os.File, string, error) {
	f, name, err := whole.Link(file, d.path)
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) {
		return f, name, err
	}
	if f, err = whole.Create(d.path); err != nil {
		return nil, "", err
	}
	if err := errors.Join(copyFile(file, f), f.Chmod(0o400)); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, "", err
	}
	return f, f.Name(), nil
}

// place gives an image or a blob its name, and its note.
func (d *Dir) place(key string, n note, file string) error {
	return whole.Locked(d.path, func() error {
		if err := d.write(key, n); err != nil {
			return err
		}
		return os.Rename(file, d.file(key))
	})
}

func hexOf(digest string) string {
	h := strings.TrimPrefix(digest, "sha256:")
	if _, err := hex.DecodeString(h); err != nil {
		return ""
	}
	return h
}
