package executor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// site serves files by URL; those in dated have the time with them.
type site struct {
	files map[string][]byte
	dated map[string]time.Time
	asked int
}

func (s *site) Download(_ context.Context, url string, w io.Writer) (time.Time, error) {
	s.asked++
	b, ok := s.files[url]
	if !ok {
		return time.Time{}, errors.New("invalid response status 404")
	}
	_, err := w.Write(b)
	return s.dated[url], err
}

// Checkout implements Git: every repository has a commit of the year 2001.
func (s *site) Checkout(_ context.Context, r buildcontext.Repository, dir string) (buildcontext.Checkout, error) {
	s.asked++
	return buildcontext.Checkout{Time: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)}, os.WriteFile(dir+"/file", nil, 0o600)
}

// archive is a tar with a file of each time, and a directory of now.
func archive(t *testing.T, times ...time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	headers := []*tar.Header{{Typeflag: tar.TypeDir, Name: "d/", ModTime: time.Now()}}
	for _, at := range times {
		headers = append(headers, &tar.Header{Typeflag: tar.TypeReg, Name: "d/f", ModTime: at})
	}
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRemoteTime(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	s := &site{
		files: map[string][]byte{
			"dated": []byte("x"), "plain": []byte("x"), "tar": archive(t, early, late, early), "dir": archive(t), "broken": archive(t, late)[:40],
		},
		dated: map[string]time.Time{"dated": early},
	}
	sum := sha256.Sum256([]byte("x"))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	space, err := rootfs.New(t.TempDir())
	if err != nil {
		t.Skip("no workspace here: ", err)
	}
	e := &epochs{space: space, tools: Tools{Download: s, Git: s}, in: &Inputs{Times: map[string]time.Time{"": late}}}
	for _, tc := range []struct {
		remote plan.Remote
		want   time.Time // zero: none
		err    string
	}{
		{plan.Remote{URL: "dated"}, early, ""},
		{plan.Remote{URL: "dated", Checksum: digest}, early, ""},
		{plan.Remote{URL: "dated", Checksum: "sha256:00"}, time.Time{}, "digest mismatch"},
		{plan.Remote{URL: "plain"}, time.Time{}, ""},
		{plan.Remote{URL: "tar"}, late, ""},
		{plan.Remote{URL: "dir"}, time.Time{}, ""},
		{plan.Remote{URL: "broken"}, time.Time{}, ""},
		{plan.Remote{URL: "none"}, time.Time{}, "404"},
		{plan.Remote{Git: &plan.Repository{URL: "repo"}}, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), ""},
	} {
		for range 2 { // the second time from memory
			before := s.asked
			got, err := e.RemoteTime(t.Context(), tc.remote)
			switch {
			case tc.err != "":
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%+v: error %v, want %s", tc.remote, err, tc.err)
				}
			case err != nil:
				t.Errorf("%+v: %v", tc.remote, err)
			case (got == nil) != tc.want.IsZero() || got != nil && !got.Equal(tc.want):
				t.Errorf("%+v: %v, want %v", tc.remote, got, tc.want)
			}
			if s.asked-before > 1 {
				t.Errorf("%+v: asked %d times", tc.remote, s.asked-before)
			}
		}
	}
	if s.asked != 11 { // what failed is asked for again
		t.Errorf("asked %d times, want 11", s.asked)
	}
	for name, want := range map[string]bool{"": true, "other": false} {
		if got, err := e.ContextTime(t.Context(), name); err != nil || (got != nil) != want {
			t.Errorf("context %q: %v, %v", name, got, err)
		}
	}
}
