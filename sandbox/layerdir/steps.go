package layerdir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it is but the sooner forgotten
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
func (d *Dir) Adopt(digest, file string, copyFile func(from, to string) error) error {
	key := BlobKey(digest)
	if err := CheckKey(key); err != nil {
		return err
	}
	if there, err := d.open(key); err == nil {
		return there.Close()
	}
	dir, err := os.MkdirTemp(d.path, newPrefix)
	if err != nil {
		return fmt.Errorf("layer cache: %w", err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "blob")
	err = os.Link(file, tmp)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		err = copyFile(file, tmp)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(tmp)
	}
	if err == nil {
		err = d.write(key, note{Size: info.Size(), SHA256: hexOf(digest), Boot: d.boot})
	}
	if err == nil {
		err = os.Rename(tmp, d.file(key))
	}
	if err != nil {
		return fmt.Errorf("layer cache: %w", err)
	}
	return nil
}

func hexOf(digest string) string {
	h := strings.TrimPrefix(digest, "sha256:")
	if _, err := hex.DecodeString(h); err != nil {
		return ""
	}
	return h
}
