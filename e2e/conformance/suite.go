package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/language"
	"github.com/rogpeppe/go-internal/txtar"
)

// testCase is one file of a suite.
type testCase struct {
	Name   string // group/name
	Number int    // among the cases that are run, from 1
	Path   string // the file
	Marks  *language.Case
	Files  []txtar.File
	Opts   options
	Want   want
}

// options is opts.json.
type options struct {
	Dockerfile       string            `json:"dockerfile"`
	Target           string            `json:"target"`
	BuildArgs        map[string]string `json:"build_args"`
	Platform         string            `json:"platform"`
	Labels           map[string]string `json:"labels"`
	Secrets          map[string]string `json:"secrets"`
	SSH              []string          `json:"ssh"`
	Contexts         map[string]string `json:"contexts"`
	SourceDateEpoch  *int64            `json:"source_date_epoch"`
	RewriteTimestamp bool              `json:"rewrite_timestamp"`
	Hostname         string            `json:"hostname"`
	AddHosts         map[string]string `json:"add_hosts"`
	ShmSize          int64             `json:"shm_size"`
	Files            []extraFile       `json:"files"`
	HTTP             []httpFile        `json:"http"`
	PinMTime         []string          `json:"pin_mtime"`
	LooseHardlinks   bool              `json:"loose_hardlinks"`
	Quirk            bool              `json:"quirk"`
}

// extraFile is a file that txtar cannot hold, or attributes of one it does.
type extraFile struct {
	Path     string            `json:"path"`
	Text     *string           `json:"text"`
	Base64   []byte            `json:"base64"`
	Symlink  string            `json:"symlink"`
	Hardlink string            `json:"hardlink"`
	Dir      bool              `json:"dir"`
	Fifo     bool              `json:"fifo"`
	Mode     string            `json:"mode"`
	UID      int               `json:"uid"`
	GID      int               `json:"gid"`
	MTime    *int64            `json:"mtime"`
	Xattrs   map[string]string `json:"xattrs"`
}

type httpFile struct {
	Path   string `json:"path"`
	Base64 []byte `json:"base64"`
}

// want is want.json.
type want struct {
	Base         string         `json:"base"`
	OS           string         `json:"os"`
	Architecture string         `json:"architecture"`
	Variant      string         `json:"variant"`
	Author       string         `json:"author"`
	Created      string         `json:"created"`
	Config       map[string]any `json:"config"`
	Layers       int            `json:"layers"`
	History      []flat.History `json:"history"`
	Tree         []flat.Entry   `json:"tree"`
	Removed      []string       `json:"removed"`
	LogContains  []string       `json:"log_contains"`
	LogExcludes  []string       `json:"log_excludes"`
	Error        *wantError     `json:"error"`
	ExitCode     *int           `json:"exit_code"`
}

type wantError struct {
	Class      string   `json:"class"`
	Contains   []string `json:"contains"`
	Line       int      `json:"line"`
	Message    string   `json:"message"` // for the reader
	NoExitCode bool     `json:"no_exit_code,omitempty"`
}

// loadAll reads the cases of all suites.
func loadAll(suites []string, match func(name string) bool) ([]*testCase, error) {
	var out []*testCase
	for _, dir := range suites {
		cases, err := load(dir, match)
		if err != nil {
			return nil, err
		}
		out = append(out, cases...)
	}
	for i, c := range out {
		c.Number = i + 1
	}
	return out, nil
}

// load reads the cases whose name matches.
func load(suite string, match func(name string) bool) ([]*testCase, error) {
	files, err := filepath.Glob(filepath.Join(suite, "cases", "*", "*.txtar"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []*testCase
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f)) + "/" + strings.TrimSuffix(filepath.Base(f), ".txtar")
		if !match(name) {
			continue
		}
		c, err := parse(name, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func parse(name, file string) (*testCase, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	a := txtar.Parse(b)
	c := &testCase{Name: name, Path: file, Opts: options{Dockerfile: "Dockerfile"}}
	if c.Marks, err = language.ReadComment(string(a.Comment)); err != nil {
		return nil, err
	}
	for _, f := range a.Files {
		switch f.Name {
		case "opts.json":
			err = decode(f.Data, &c.Opts)
		case "want.json":
			err = decode(f.Data, &c.Want)
		default:
			c.Files = append(c.Files, f)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return c, nil
}

// decode refuses unknown keys: a key that the runner ignored would be a case
// that passes for nothing.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func (c *testCase) group() string { return strings.Split(c.Name, "/")[0] }
