package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
)

func logOptions(t *testing.T, line string, terminal bool, env map[string]string) progress.Options {
	t.Helper()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	l := RegisterLog(fs)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
	return l.Options(terminal, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func TestVerbosity(t *testing.T) {
	for word, want := range map[string]progress.Level{
		"trace": progress.Debug, "debug": progress.Debug, "info": progress.Normal, "warn": progress.Warn,
		"error": progress.Quiet, "fatal": progress.Quiet, "panic": progress.Quiet,
	} {
		if got := logOptions(t, "-v "+word, false, nil).Level; got != want {
			t.Errorf("-v %s: level %d, want %d", word, got, want)
		}
	}
	if got := logOptions(t, "", false, nil).Level; got != progress.Normal {
		t.Errorf("without -v: level %d", got)
	}
}

// TestTrace: a checkout of a stranger's cannot say where the trace is written to.
func TestTrace(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(t.TempDir(), "file"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{"": "", "trace": filepath.Join(dir, "trace"), "/x/trace": "/x/trace", "link": "error"} {
		got, err := (&Log{trace: given}).Trace(dir, dir)
		if err != nil {
			got = "error"
		}
		if got != want || err != nil && !strings.HasPrefix(err.Error(), "--trace: ") {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
}
