package layerdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

const (
	recallSuffix = ".last"
	maxRecall    = 1 << 20             // bytes
	forgetAfter  = 30 * 24 * time.Hour // what nobody has noted again is removed
)

var nameForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Remember notes under a name, 64 hex digits, which images somebody needed. None is
// not noted.
func (d *Dir) Remember(name string, keys []string) error {
	if !nameForm.MatchString(name) {
		return nil
	}
	path := filepath.Join(d.path, name+recallSuffix)
	if len(keys) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("layer images: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(keys)
	if err != nil {
		return fmt.Errorf("layer images: %w", err)
	}
	return d.put(b, path)
}

// Recall returns what was noted under a name. It is a guess: the images need not
// be there any more.
func (d *Dir) Recall(name string) (keys []string) {
	if !nameForm.MatchString(name) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(d.path, name+recallSuffix), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if json.NewDecoder(io.LimitReader(f, maxRecall)).Decode(&keys) != nil {
		return nil
	}
	return keys
}

// put writes a small file, whole or not at all.
func (d *Dir) put(b []byte, path string) error {
	f, err := os.CreateTemp(d.path, newPrefix)
	if err != nil {
		return fmt.Errorf("layer images: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("layer images: %w", err)
	}
	return nil
}
