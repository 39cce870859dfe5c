package layerdir

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

const (
	recallSuffix = ".last"
	maxRecall    = 1 << 20 // bytes
)

var nameForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Remember notes under a name, 64 hex digits, which images somebody needed.
func (d *Dir) Remember(name string, keys []string) error {
	if !nameForm.MatchString(name) {
		return nil
	}
	path := filepath.Join(d.path, name+recallSuffix)
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
	path := filepath.Join(d.path, name+recallSuffix)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	touch(path)
	if json.NewDecoder(io.LimitReader(f, maxRecall)).Decode(&keys) != nil {
		return nil
	}
	return keys
}

// put writes a small file.
func (d *Dir) put(b []byte, path string) error {
	if err := whole.Write(d.path, path, b); err != nil {
		return fmt.Errorf("layer images: %w", err)
	}
	return nil
}

// touch notes that a small file is of use. Without, it is but the sooner forgotten.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}
