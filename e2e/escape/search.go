package escape

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// secrets are what a build may not tell, by name, in the forms in which it could.
func (s *Site) secrets() map[string][]byte {
	forms := map[string][]byte{}
	for name, value := range map[string]string{
		"the word of the canary files": s.Word, "the registry's password": s.Login.Password,
	} {
		forms[name] = []byte(value)
		forms[name+" in hex"] = []byte(hex.EncodeToString([]byte(value)))
		for shift := range 3 {
			forms[fmt.Sprintf("%s in base64 (%d)", name, shift)] = base64At(value, shift)
		}
	}
	return forms
}

// base64At is what of a value's base64 does not depend on its neighbours, where
// it begins shift bytes after a group of three.
func base64At(value string, shift int) []byte {
	text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), value...))
	const group = 4
	return []byte(text[group : len(text)-group+1])
}

// search looks for secrets in the output and in everything that was written: the
// image's blobs, unpacked too, and the cache.
func (t *Target) search(r *Result) []string {
	found := t.searchIn("the output", []byte(r.Output))
	_ = filepath.WalkDir(filepath.Join(t.Dir, "out"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			found = append(found, "search: "+err.Error())
			return nil
		}
		found = append(found, t.searchIn(path, b)...)
		if plain := unpacked(b); plain != nil {
			found = append(found, t.searchIn(path+" unpacked", plain)...)
		}
		return nil
	})
	return found
}

func (t *Target) searchIn(where string, b []byte) []string {
	var found []string
	for name, form := range t.secrets() {
		if bytes.Contains(b, form) {
			found = append(found, fmt.Sprintf("leak: %s is in %s", name, where))
		}
	}
	return found
}

// unpacked is what gzip or zstd have packed, up to a limit; nil if neither has.
func unpacked(b []byte) []byte {
	const most = 256 << 20
	var r io.Reader
	if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
		r = z
	} else if bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		z, err := zstd.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil
		}
		defer z.Close()
		r = z
	}
	if r == nil {
		return nil
	}
	plain, _ := io.ReadAll(io.LimitReader(r, most))
	return plain
}
