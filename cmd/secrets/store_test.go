package secrets

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// events keeps what is told.
type events struct {
	mu   sync.Mutex
	list []request.Event
}

func (e *events) Emit(event request.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) texts(kind request.EventKind) (list []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.list {
		if event.Kind == kind {
			list = append(list, event.Text)
		}
	}
	return list
}

func noEnv(string) (string, bool) { return "", false }

func write(t *testing.T, name string, size int, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecrets(t *testing.T) {
	largest, large := write(t, "largest", request.MaxSecret, 0o600), write(t, "large", request.MaxSecret+1, 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(largest, link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"V": "value", "EMPTY": "", "LARGE": strings.Repeat("x", request.MaxSecret+1)}
	for _, tt := range []struct {
		secret Secret
		size   int
		err    string
	}{
		{Secret{File: largest}, request.MaxSecret, ""},
		{Secret{File: link}, request.MaxSecret, ""},
		{Secret{File: write(t, "empty", 0, 0o400)}, 0, ""},
		{Secret{Env: "V"}, 5, ""},
		{Secret{Env: "EMPTY"}, 0, ""},
		{Secret{Env: "UNSET"}, 0, "secret s: the environment variable UNSET is not set"},
		{Secret{Env: "LARGE"}, 0, "secret s: the environment variable LARGE is larger than 512000 bytes"},
		{Secret{File: large}, 0, "secret s: " + large + ": larger than 512000 bytes"},
		{Secret{File: large + "r"}, 0, "secret s: " + large + "r: no such file or directory"},
		{Secret{File: pipe}, 0, "secret s: " + pipe + ": not a regular file"},
		{Secret{File: "/dev/zero"}, 0, "secret s: /dev/zero: not a regular file"},
		{Secret{File: "/"}, 0, "secret s: /: not a regular file"},
	} {
		tt.secret.ID = "s"
		s, err := Open(Lent{Secrets: []Secret{tt.secret}}, func(name string) (string, bool) { v, ok := env[name]; return v, ok }, &events{})
		if err != nil || tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%+v: error %v, want %q", tt.secret, err, tt.err)
			}
			continue
		}
		a := s.Answer(t.Context(), request.Ask{Scope: request.Secret, Name: "s"})
		if a.Error != "" || len(a.Data) != tt.size {
			t.Errorf("%+v: %d bytes, %q", tt.secret, len(a.Data), a.Error)
		}
	}
}

// TestSecretsAreReadOnce: a build reads its secrets before its first step;
// whoever gets one gets a copy; the last of one id counts.
func TestSecretsAreReadOnce(t *testing.T) {
	path := write(t, "s", 3, 0o600)
	s, err := Open(Lent{Secrets: []Secret{{ID: "s", File: write(t, "other", 9, 0o600)}, {ID: "s", File: path}}}, noEnv, &events{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := s.Secret(t.Context(), "s")
		if err != nil || string(got) != "xxx" {
			t.Errorf("%q, %v", got, err)
		}
		clear(got)
	}
}

func TestAnswerWhatIsNotLent(t *testing.T) {
	s, err := Open(Lent{Secrets: []Secret{{ID: "s", File: write(t, "s", 3, 0o600)}}}, noEnv, &events{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ask := range []request.Ask{
		{Scope: request.Secret, Name: "x"}, {Scope: request.Secret}, {Scope: request.Agent, Name: "s", Data: []byte{11}},
		{Scope: request.Pull, Name: "s"}, {Name: "s"},
	} {
		if a := s.Answer(context.Background(), ask); a.Error == "" || a.Data != nil {
			t.Errorf("%+v: answer %+v", ask, a)
		}
	}
}
