package sandbox

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Each wall that is missing on the host is found and named.
func TestVerifyStatus(t *testing.T) {
	good := map[string]string{
		"Uid": "1000\t1000\t1000\t1000", "Seccomp": "2", "NoNewPrivs": "1",
		"CapInh": "0000000000000000", "CapPrm": "0000000000081400", "CapEff": "0000000000081400",
		"CapBnd": "0000000000081400", "CapAmb": "0000000000000000",
	}
	p := runsc.Process{PID: 1, Role: runsc.RoleSentry}
	if err := verifyStatus(p, good, 1000, sentryCaps); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ field, value, wall string }{
		{"Uid", "1000\t0\t1000\t1000", "host uid"},
		{"Uid", "", "seccomp"},
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
		if err := verifyStatus(p, bad, 1000, sentryCaps); !errors.As(err, &we) || we.Wall != tt.wall || we.Hint == "" {
			t.Errorf("%s %q: %v", tt.field, tt.value, err)
		}
	}
}

// Processes that are not there are not walls that stand.
func TestVerifyHostWithoutProcesses(t *testing.T) {
	var we *WallError
	if err := verifyHost(t.TempDir(), modeUser, false); !errors.As(err, &we) || we.Wall != "gVisor" {
		t.Errorf("error %v", err)
	}
	if err := verifyProcess(runsc.Process{PID: os.Getpid()}, os.Getuid(), sentryCaps); !errors.As(err, &we) || we.Wall != "user namespace" {
		t.Errorf("error %v", err)
	}
}

func TestVerifyPosture(t *testing.T) {
	for _, p := range []request.Posture{{}, {GVisor: true}, {Seccomp: 2}, {GVisor: true, Seccomp: 1}} {
		if verifyPosture(p) == nil {
			t.Errorf("%+v passes", p)
		}
	}
	if err := verifyPosture(request.Posture{GVisor: true, Seccomp: 2}); err != nil {
		t.Error(err)
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
