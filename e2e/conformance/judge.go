package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// judge compares how a build ended with the golden answer. It returns what is
// wrong, nothing if nothing is.
func (c *testCase) judge(out outcome, p paths, bases string) []string {
	if out.hung {
		return []string{"hung: " + tail(out.log)}
	}
	if c.Want.Error != nil {
		return c.judgeFailure(out, p)
	}
	if out.exit != 0 {
		return []string{fmt.Sprintf("the build failed with status %d: %s", out.exit, describe(out))}
	}
	img, err := flat.Open(p.layout, v1.Platform{})
	if err != nil {
		return []string{"no valid image: " + err.Error()}
	}
	base, err := c.base(bases)
	if err != nil {
		return []string{"base: " + err.Error()}
	}
	problems := c.judgeConfig(img, base, out.known, p.back)
	problems = append(problems, c.judgeTree(img, base)...)
	if !out.known {
		return problems
	}
	return append(problems, c.judgeLog(out.log)...)
}

// base is the image that the answer is relative to.
func (c *testCase) base(bases string) (*flat.Image, error) {
	if c.Want.Base == "scratch" {
		return &flat.Image{Tree: flat.New()}, nil
	}
	name := strings.TrimSuffix(c.Want.Base, ":1")
	return flat.Open(filepath.Join(bases, name), v1.Platform{
		OS: c.Want.OS, Architecture: c.Want.Architecture, Variant: c.Want.Variant,
	})
}

// judgeConfig compares the config file; layers and history only of a builder
// whose ways are known to be BuildKit's.
func (c *testCase) judgeConfig(img, base *flat.Image, known bool, back *strings.Replacer) []string {
	w, got := c.Want, img.Config
	var problems []string
	for _, f := range []struct{ name, want, got string }{
		{"os", w.OS, got.OS}, {"architecture", w.Architecture, got.Architecture},
		{"variant", w.Variant, got.Variant}, {"author", w.Author, got.Author},
	} {
		if f.want != f.got {
			problems = append(problems, fmt.Sprintf("%s: want %q, got %q", f.name, f.want, f.got))
		}
	}
	if w.Created != "" {
		at, err := time.Parse(time.RFC3339, w.Created)
		if err != nil || !at.Equal(got.Created) {
			problems = append(problems, fmt.Sprintf("created: want %s, got %s", w.Created, got.Created))
		}
	}
	if d := cmp.Diff(bare(w.Config), replaceAll(bare(got.Config), back)); d != "" {
		problems = append(problems, "config (-want +got):\n"+d)
	}
	if !known {
		return problems
	}
	if n := img.Layers - base.Layers; n != w.Layers {
		problems = append(problems, fmt.Sprintf("layers: want %d, got %d", w.Layers, n))
	}
	if len(got.History) < len(base.Config.History) {
		return append(problems, "history: shorter than that of the base")
	}
	history := got.History[len(base.Config.History):]
	for i := range history {
		history[i].CreatedBy = back.Replace(history[i].CreatedBy)
	}
	if d := cmp.Diff(none(w.History), none(history)); d != "" {
		problems = append(problems, "history (-want +got):\n"+d)
	}
	return problems
}

func none(h []flat.History) []flat.History {
	if len(h) == 0 {
		return nil
	}
	return h
}

func (c *testCase) judgeTree(img, base *flat.Image) []string {
	o := flat.Options{LooseHardlinks: c.Opts.LooseHardlinks, PinMTime: c.Opts.PinMTime}
	changed, removed := flat.Diff(base.Tree.Entries(o), img.Tree.Entries(o))
	problems := flat.Compare(c.Want.Tree, changed)
	if strings.Join(removed, "\n") != strings.Join(c.Want.Removed, "\n") {
		problems = append(problems, fmt.Sprintf("removed: want %q, got %q", c.Want.Removed, removed))
	}
	return problems
}

func (c *testCase) judgeLog(log string) []string {
	var problems []string
	for _, s := range c.Want.LogContains {
		if !strings.Contains(log, s) {
			problems = append(problems, fmt.Sprintf("log: %q is not in: %s", s, tail(log)))
		}
	}
	for _, s := range c.Want.LogExcludes {
		if strings.Contains(log, s) {
			problems = append(problems, fmt.Sprintf("log: %q is in: %s", s, tail(log)))
		}
	}
	return problems
}

func (c *testCase) judgeFailure(out outcome, p paths) []string {
	if out.exit == 0 {
		return []string{"the build succeeded; wanted: " + c.Want.Error.Message}
	}
	var problems []string
	if _, err := os.Stat(filepath.Join(p.layout, "index.json")); !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, "a failed build made an image")
	}
	if !out.known {
		return problems
	}
	w, got := c.Want.Error, out.failure
	if string(got.Class) != w.Class {
		problems = append(problems, fmt.Sprintf("class: want %s, got %s", w.Class, got.Class))
	}
	if w.Line != 0 && got.Line != w.Line {
		problems = append(problems, fmt.Sprintf("line: want %d, got %d", w.Line, got.Line))
	}
	message := p.back.Replace(got.Message + "\n" + got.Hint)
	for _, s := range w.Contains {
		if !strings.Contains(message, s) {
			problems = append(problems, fmt.Sprintf("message: %q is not in it", s))
		}
	}
	if c.Want.ExitCode != nil && (got.ExitCode != *c.Want.ExitCode || out.exit != *c.Want.ExitCode) {
		problems = append(problems, fmt.Sprintf("exit code: want %d, got %d (status %d)", *c.Want.ExitCode, got.ExitCode, out.exit))
	}
	problems = append(problems, c.judgeLog(out.log)...)
	if len(problems) > 0 {
		problems = append(problems, "recorded message: "+w.Message, "message: "+message)
	}
	return problems
}

// bare drops what an image config may as well leave out.
func bare(config map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range config {
		rv := reflect.ValueOf(v)
		empty := v == nil || rv.IsZero() || (rv.Kind() == reflect.Slice || rv.Kind() == reflect.Map) && rv.Len() == 0
		if !empty && k != "ArgsEscaped" {
			out[k] = v
		}
	}
	return out
}

// replaceAll puts the placeholders back into every string of a JSON value.
func replaceAll(config map[string]any, back *strings.Replacer) map[string]any {
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case string:
			return back.Replace(v)
		case []any:
			out := make([]any, len(v))
			for i := range v {
				out[i] = walk(v[i])
			}
			return out
		case map[string]any:
			out := map[string]any{}
			for k, e := range v {
				out[back.Replace(k)] = walk(e)
			}
			return out
		}
		return v
	}
	return walk(config).(map[string]any)
}

func describe(out outcome) string {
	if out.failure == nil {
		return tail(out.log)
	}
	f := out.failure
	return fmt.Sprintf("%s, line %d: %s", f.Class, f.Line, tail(f.Message))
}

// tail is the end of a text, short enough to read.
func tail(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}
