package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestPaths(t *testing.T) {
	files := map[string]string{
		"cwd/Dockerfile":                     "cwd",
		"cwd/other/Containerfile":            "x",
		"cwd/app/Dockerfile":                 "app",
		"cwd/app/.dockerignore":              "a",
		"cwd/app/dev/Dockerfile":             "dev",
		"cwd/app/only":                       "only",
		"cwd/app/only.dockerignore":          "b",
		"cwd/bare/file":                      "",
		"cwd/link":                           "->app",
		"cwd/inside/real":                    "x",
		"cwd/inside/Dockerfile":              "->real",
		"cwd/escape/Dockerfile":              "->../../secret",
		"cwd/ignored/Dockerfile":             "x",
		"cwd/ignored/.dockerignore":          "->../../secret",
		"cwd/beside/Dockerfile":              "x",
		"cwd/beside/Dockerfile.dockerignore": "->/etc/passwd",
		"cwd/dangling/Dockerfile":            "->nowhere",
		"cwd/isdir/Dockerfile/":              "",
		"cwd/outside":                        "->../elsewhere",
		"cwd/app/out":                        "->../../elsewhere",
		"cwd/linked/sub":                     "->real",
		"cwd/linked/real/Dockerfile":         "x",
		"elsewhere/Dockerfile":               "x",
		"secret":                             "s",
	}
	root := tree(t, files)
	tests := []struct {
		line                        string
		context, dockerfile, ignore string // below cwd
		err                         string
	}{
		{line: "", context: ".", dockerfile: "Dockerfile"},
		{line: "app", context: "app", dockerfile: "app/Dockerfile", ignore: "app/.dockerignore"},
		{line: "-c app", context: "app", dockerfile: "Dockerfile", ignore: "app/.dockerignore"},
		{line: "-c dir://app", context: "app", dockerfile: "Dockerfile", ignore: "app/.dockerignore"},
		{line: "-c dir://.", context: ".", dockerfile: "Dockerfile"},
		{line: "link", context: "app", dockerfile: "app/Dockerfile", ignore: "app/.dockerignore"},
		{line: "-f dev/Dockerfile app", context: "app", dockerfile: "app/dev/Dockerfile", ignore: "app/.dockerignore"},
		{line: "-f Dockerfile app", context: "app", dockerfile: "Dockerfile", ignore: "app/.dockerignore"},
		{line: "-f other/Containerfile app", context: "app", dockerfile: "other/Containerfile", ignore: "app/.dockerignore"},
		{line: "-f only app", context: "app", dockerfile: "app/only", ignore: "app/only.dockerignore"},
		{line: "-f - app", context: "app", dockerfile: "-", ignore: "app/.dockerignore"},
		{line: "bare", context: "bare", dockerfile: "Dockerfile"},
		{line: "inside", context: "inside", dockerfile: "inside/real"},
		{line: "escape", err: "leads out of the context"},
		{line: "-f escape/Dockerfile app", err: "leads out of the context"},
		{line: "-f outside/Dockerfile", err: "leads out of"},
		{line: "-f outside/Dockerfile app", err: "leads out of"},
		{line: "-f out/Dockerfile app", err: "leads out of"},
		{line: "-f sub/Dockerfile linked", context: "linked", dockerfile: "linked/real/Dockerfile"},
		{line: "ignored", err: "leads out of the context"},
		{line: "beside", err: "leads out of the context"},
		{line: "-f dangling/Dockerfile", err: "no Dockerfile"},
		{line: "-f nothere app", err: "no Dockerfile: nothere: no such file: please provide a valid path to a Dockerfile within the build context with --dockerfile"},
		{line: "-f app", err: "Dockerfile app: is a directory"},
		{line: "isdir", context: "isdir", dockerfile: "Dockerfile"},
		{line: "nothere", err: "context nothere: no such file or directory"},
		{line: "app/Dockerfile", err: "context app/Dockerfile: not a directory"},
		{line: "-f /dev/null", err: "not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			cwd := filepath.Join(root, "cwd")
			got, _, err := parse(t, cwd, nil, "--no-push "+tt.line)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if e := err.(*Error); !e.Input {
					t.Error("a file that cannot be used is no fault of usage")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := func(rel string) request.GuestPath {
				if rel == "" || rel == Stdin {
					return request.GuestPath(rel)
				}
				return request.GuestPath(filepath.Join(cwd, rel))
			}
			if got.Context != want(tt.context) || got.Dockerfile != want(tt.dockerfile) || got.Ignore != want(tt.ignore) {
				t.Errorf("context %q, Dockerfile %q, ignore file %q; want %q, %q, %q below %s",
					got.Context, got.Dockerfile, got.Ignore, tt.context, tt.dockerfile, tt.ignore, cwd)
			}
		})
	}
}

// What cannot be read is told before anything starts.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := tree(t, map[string]string{"a/Dockerfile": "x", "b/Dockerfile": "x", "b/.dockerignore": "y"})
	for path, want := range map[string]string{"a/Dockerfile": "Dockerfile ", "b/.dockerignore": "ignore file "} {
		path = filepath.Join(dir, path)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		_, _, err := parse(t, dir, nil, "--no-push "+filepath.Dir(path))
		if e, ok := err.(*Error); !ok || !e.Input || e.Msg != want+path+": permission denied" {
			t.Errorf("%s: %v", path, err)
		}
	}
}
