package sandbox

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestAhead: push hears once of what build says of its blobs, if there is such a blob and
// anything is pushed at all.
func TestAhead(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := s.put([]byte("layer"))
	if err != nil {
		t.Fatal(err)
	}
	other := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		name   string
		role   request.Role
		to     *ahead
		digest string
		ok     bool
	}{
		{"a blob", request.RoleBuild, newAhead(true), digest, true},
		{"a blob that is not there", request.RoleBuild, newAhead(true), other, false},
		{"no digest", request.RoleBuild, newAhead(true), "", false},
		{"nothing is pushed", request.RoleBuild, newAhead(false), digest, false},
		{"fetch", request.RoleFetch, newAhead(true), digest, false},
		{"push", request.RolePush, newAhead(true), digest, false},
	} {
		in := &intake{role: tt.role, store: s, ahead: tt.to, open: map[uint32]incoming{}}
		for range 2 {
			err := in.begin(request.Output{Kind: request.OutputAhead, Digest: tt.digest})
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, errOutput) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if tt.ok && (len(tt.to.blobs) != 1 || <-tt.to.blobs != (request.Descriptor{Digest: digest, Size: 5})) {
			t.Errorf("%s: not told once", tt.name)
		}
	}
}
