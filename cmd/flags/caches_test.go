package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestCacheOptions(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, standard string
		want           string
		size           int64
		err            string
	}{
		{"", "/standard", "/standard", 10 << 30, ""},
		{"", "", "", 0, ""},
		{"--cache-dir=", "/standard", "", 0, ""},
		{"--cache-dir=/x/../y --cache-size=1m", "/standard", "/y", 1 << 20, ""},
		{"--cache-dir=new/c", "", filepath.Join(dir, "new/c"), 10 << 30, ""},
		{"--cache-dir=link", "", "", 0, "--cache-dir: " + dir + "/link: a symbolic link that leads out"},
		{"--cache-dir=link/c", "", "", 0, "a symbolic link that leads out"},
		{"--cache-dir=Dockerfile", "", "", 0, "Dockerfile: not a directory"},
		{"--cache-size=much", "", "", 0, `--cache-size: "much" is not a size`},
		{"--cache-size=0", "", "", 0, `--cache-size: "0" is not a size`},
	} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		b := Register(fs)
		if err := fs.Parse(append(strings.Fields(c.args), "--no-push")); err != nil {
			t.Fatal(err)
		}
		from := From{Dir: dir, Context: ".", CacheDir: c.standard, Env: func(string) (string, bool) { return "", false }}
		r, _, err := b.Request(from)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.args, err, c.err)
			}
			continue
		}
		if err != nil || string(r.Caches) != c.want || r.CacheSize != c.size {
			t.Errorf("%s: %q, %d, %v", c.args, r.Caches, r.CacheSize, err)
		}
		if given := strings.Contains(c.args, "--cache-dir"); b.CacheDirGiven() != given {
			t.Errorf("%s: given: %v", c.args, !given)
		}
	}
}

func TestStandardCacheDir(t *testing.T) {
	for want, env := range map[string]map[string]string{
		"/x/kbuild-sandbox":        {"XDG_CACHE_HOME": "/x", "HOME": "/h"},
		"/h/.cache/kbuild-sandbox": {"XDG_CACHE_HOME": "relative", "HOME": "/h"},
		"":                         {"HOME": ""},
	} {
		got := StandardCacheDir(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if got != want {
			t.Errorf("%v: %q, want %q", env, got, want)
		}
	}
}
