package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// told is an error about which everything has been printed.
type told struct{}

func (told) Error() string { return "failed" }

// answer prints what was asked for instead of an image.
func (a *app) answer(res request.Result) error {
	if res.Called == nil {
		return errors.New("the executor gave no answer")
	}
	if err := progress.Answer(a.stdout, *res.Called, a.mask); err != nil {
		return err
	}
	if res.Called.Failed {
		return told{}
	}
	return nil
}

// ending is the last line of --progress=json: how the build ended.
type ending struct {
	Time   time.Time       `json:"time"`
	Kind   string          `json:"kind"` // result or error
	Result *request.Result `json:"result,omitempty"`
	Text   string          `json:"text,omitempty"`
	Hint   string          `json:"hint,omitempty"`
}

// hidden is a result without the values of secrets: much of it is what a sandbox
// says. Failure and Called are masked where they are shown, as text.
func (a *app) hidden(res request.Result) (request.Result, error) {
	out := request.Result{Failure: res.Failure, Called: res.Called}
	res.Failure, res.Called = nil, nil
	raw, err := json.Marshal(res)
	if err != nil {
		return out, fmt.Errorf("result: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var fields any
	if err := dec.Decode(&fields); err != nil {
		return out, fmt.Errorf("result: %w", err)
	}
	if raw, err = json.Marshal(a.hide(fields)); err != nil {
		return out, fmt.Errorf("result: %w", err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("result: %w", err)
	}
	return out, nil
}

// hide masks the strings of a value that was decoded from JSON, but no names of
// fields, and by themselves, so that what is encoded again is whole.
func (a *app) hide(v any) any {
	switch v := v.(type) {
	case string:
		return a.mask.Text(v)
	case []any:
		for i := range v {
			v[i] = a.hide(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = a.hide(v[name])
		}
	}
	return v
}

// report tells a person, or a program, of an error: what is wrong, and apart
// from it what to do.
func (a *app) report(err error) {
	var failed *buildError
	if errors.As(err, &failed) {
		if a.json {
			res := failed.result
			f := progress.Mask(*res.Failure, a.mask)
			res.Failure = &f
			a.line(ending{Kind: "result", Result: &res})
			return
		}
		progress.Report(a.stderr, *failed.result.Failure, a.look())
		return
	}
	text, hint := explain(err)
	text, hint = a.mask.Text(text), a.mask.Text(hint)
	if usage := new(flags.Error); a.json && errors.As(err, &usage) && usage.Class != "" {
		f := &request.Failure{Class: usage.Class, Message: text, Hint: hint}
		a.line(ending{Kind: "result", Result: &request.Result{Version: request.Version, Failure: f}})
		return
	}
	if a.json {
		a.line(ending{Kind: "error", Text: text, Hint: hint})
		return
	}
	progress.Error(a.stderr, text, hint, a.look())
}

// look is how errors are shown.
func (a *app) look() progress.Options {
	return progress.Options{Color: a.color, Mask: a.mask}
}

func (a *app) line(o ending) {
	o.Time = time.Now()
	if line, err := progress.Line(o); err == nil {
		a.stderr.Write(line)
	}
}

// explain is an error in words, and what to do about it.
func explain(err error) (text, hint string) {
	var (
		usage   *flags.Error
		wall    *sandbox.WallError
		end     *sandbox.EndError
		noRunsc *runsc.Error
	)
	text = err.Error()
	switch {
	case errors.As(err, &usage):
		return usage.Msg, usage.Hint
	case errors.As(err, &wall):
		return withLog(text, wall.Log), wall.Hint
	case errors.As(err, &end):
		return withLog(withLog(text, end.Output), end.Log), end.Hint
	case errors.As(err, &noRunsc):
		return noRunsc.Msg, noRunsc.Hint
	}
	return text, ""
}

// withLog puts what gVisor or the executor reported below a message.
func withLog(text, log string) string {
	if log = strings.TrimSpace(log); log == "" {
		return text
	}
	return text + "\n" + log
}
