package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// parsed is what dockerfile.Parse returned for a name.
type parsed struct {
	name  string
	file  *dockerfile.File
	err   error
	steps *Steps
}

// checked is the answer to --call check.
type checked struct {
	Warnings []violation    `json:"warnings"`
	Sources  []checkSource  `json:"sources"`
	Error    *checkedError  `json:"buildError,omitempty"`
	at       []plan.Warning // those of Warnings
	err      *dockerfile.Error
}

type violation struct {
	Rule        string    `json:"ruleName"`
	Description string    `json:"description,omitempty"`
	URL         string    `json:"url,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	Location    *location `json:"location,omitempty"`
}

type checkSource struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

type checkedError struct {
	Message  string   `json:"message"`
	Location location `json:"location"`
}

// callCheck carries out the build checks. What is wrong with the Dockerfile is
// part of the answer.
func callCheck(ctx context.Context, in *Inputs, opt plan.Options, images plan.Resolver, p parsed) (answer, error) {
	var warnings []plan.Warning
	err := p.err
	if p.file != nil {
		warnings, err = plan.Check(ctx, p.file, opt, images)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := &checked{Sources: []checkSource{{Filename: p.name, Data: in.Dockerfile, Language: "Dockerfile"}}}
	for _, w := range warnings {
		if w.Rule == "" { // a remark of ours, about the syntax directive
			p.steps.Warn(w.Text, w.Line)
			continue
		}
		c.at = append(c.at, w)
		c.Warnings = append(c.Warnings, violation{w.Rule, w.Description, w.URL, w.Text, at(w.Line, w.EndLine)})
	}
	if err == nil {
		return c, nil
	}
	if !errors.As(err, &c.err) {
		return nil, err
	}
	c.Error = &checkedError{Message: asBuildKit(c.err), Location: *at(c.err.Line, c.err.EndLine)}
	return c, nil
}

// asBuildKit is the message of an error with the line that BuildKit's parser
// puts before it.
func asBuildKit(e *dockerfile.Error) string {
	var place *parser.LocationError
	if errors.As(e.Err, &place) {
		return e.Err.Error()
	}
	return e.Msg
}

// failed: remarks alone do not fail a check, unless the Dockerfile says
// error=true.
func (c *checked) failed() bool { return c.Error != nil }

func (c *checked) text(out *bytes.Buffer) {
	switch n := len(c.Warnings); {
	case n == 1:
		out.WriteString("Check complete, 1 warning has been found!\n")
	case n > 1:
		fmt.Fprintf(out, "Check complete, %d warnings have been found!\n", n)
	case c.Error == nil:
		out.WriteString("Check complete, no warnings found.\n")
	}
	for _, w := range c.at {
		fmt.Fprintf(out, "\nWARNING: %s", w.Rule)
		if w.URL != "" {
			out.WriteString(" - " + w.URL)
		}
		out.WriteString("\n" + w.Text + "\n")
		c.excerpt(out, w.Line, w.EndLine)
	}
	if c.Error != nil {
		if len(c.at) > 0 {
			out.WriteByte('\n')
		}
		out.WriteString("ERROR: " + c.Error.Message + "\n")
		c.excerpt(out, c.err.Line, c.err.EndLine)
	}
}

// excerpt writes the lines around a place. As in docker's the empty line behind
// the last newline is one of the file.
func (c *checked) excerpt(out *bytes.Buffer, line, end int) {
	src := c.Sources[0]
	data := src.Data
	if bytes.HasSuffix(data, []byte("\n")) {
		data = append(data[:len(data):len(data)], '\n')
	}
	if text := dockerfile.Excerpt(data, line, end); text != "" {
		fmt.Fprintf(out, "%s:%d\n%s", src.Filename, line, text)
	}
}
