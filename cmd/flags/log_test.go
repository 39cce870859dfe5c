package flags

import (
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
