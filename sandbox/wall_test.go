package sandbox

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// Each wall that is missing on the host is found and named.
func TestVerifyStatus(t *testing.T) {
	good := map[string]string{
		"Uid": "1000\t1000\t1000\t1000", "Gid": "1000\t1000\t1000\t1000", "Seccomp": "2", "NoNewPrivs": "1",
		"CapInh": "0000000000000000", "CapPrm": "0000000000080000", "CapEff": "0000000000080000",
		"CapBnd": "0000000000080000", "CapAmb": "0000000000000000",
	}
	verify := func(status map[string]string) error {
		return errors.Join(verifyUser("sentry", status, 1000, 1000), verifyStatus("sentry", status, sentryCaps))
	}
	if err := verify(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ field, value, wall string }{
		{"Uid", "1000\t0\t1000\t1000", "host uid"},
		{"Uid", "", "host uid"},
		{"Gid", "1000\t1000\t1000\t0", "host uid"},
		{"Seccomp", "0", "seccomp"},
		{"Seccomp", "", "seccomp"},
		{"NoNewPrivs", "0", "no_new_privs"},
		{"CapEff", "00000000002c0100", "capabilities"},
		{"CapBnd", "000001ffffffffff", "capabilities"},
		{"CapAmb", "0000000000200000", "capabilities"},
		{"CapInh", "", "capabilities"},
	} {
		bad := maps.Clone(good)
		bad[tt.field] = tt.value
		var we *WallError
		if err := verify(bad); !errors.As(err, &we) || we.Wall != tt.wall || we.Hint == "" {
			t.Errorf("%s %q: %v", tt.field, tt.value, err)
		}
	}
}

func TestMappedIDs(t *testing.T) {
	for text, want := range map[string]uint64{
		"         0          0 4294967295\n":       4294967295,
		"         0       1000          1\n":       1,
		"0 1000 1\n1 100000 65536\n":               65537,
		"1 100000 65536\n":                         0,
		"0 1000 1\n100 100000 65536\n":             1,
		"0 0 10\n10 10 20\n":                       30,
		"5 0 10\n0 10 5\n":                         5,
		"0 4294967295 1\n1 0 65534\n65535 65534 1": 65536,
	} {
		file := filepath.Join(t.TempDir(), "uid_map")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := mappedIDs(file); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
