package hostile

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
)

// Entry is one of a tar archive; Type is the format's letter.
type Entry struct {
	Name string
	Type byte // 0: a file
	Link string
	Mode int64 // 0: 0755
	Data string
	PAX  map[string]string
	Head func(*tar.Header) // changes what is left
}

// Tar is an archive of entries, whatever they say.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Typeflag: e.Type, Linkname: e.Link, Mode: e.Mode, Size: int64(len(e.Data)), PAXRecords: e.PAX}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if e.Head != nil {
			e.Head(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", e.Name, err)
		}
		if _, err := w.Write([]byte(e.Data)); err != nil {
			t.Fatalf("%q: %v", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// SlipNames are names of archives and paths of URLs that lead up or elsewhere.
func SlipNames() []string {
	return []string{
		"../slip", "../../../../../../../../slip", "/slip-absolute", "a/../../slip", "./../slip", "//slip",
		`..\slip`, "a/./../../slip", "..", strings.Repeat("../", 400) + "slip",
	}
}
