package dockerfile

import (
	"bytes"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// MaxSize is the largest Dockerfile that is read, in bytes.
const MaxSize = 8 << 20

// maxInstructions bounds what one Dockerfile can ask for; the largest generated
// ones have some thousands.
const maxInstructions = 100_000

// File is a Dockerfile that parses.
type File struct {
	// Name is what the user called it, for messages.
	Name string
	// Data is the text.
	Data []byte
	// Escape is the character that continues a line and takes the meaning
	// from a dollar: backslash or, by the escape directive, backtick.
	Escape rune
	// Syntax is the value of the syntax directive, or empty; SyntaxLine its line.
	Syntax     string
	SyntaxLine int
	// Check is the value of the check directive, or empty.
	Check string

	ast      *parser.Node
	warnings []parser.Warning
}

// Parse parses a Dockerfile. Its errors are of type *Error. Where instructions
// are read but one of them is wrong the File is returned beside the error: its
// Instructions fail in the same way, after what a linter has to say.
func Parse(name string, data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, Errorf(request.ClassParse, nil, "the Dockerfile has %d bytes, at most %d are read", len(data), MaxSize)
	}
	if len(data) == 0 {
		return nil, Errorf(request.ClassParse, nil, "the Dockerfile cannot be empty")
	}
	f := &File{Name: name, Data: data}
	if _, line, at, ok := parser.DetectSyntax(data); ok {
		f.Syntax = line
		f.SyntaxLine, _ = Lines(at)
	}
	// As in BuildKit the value of check is the text up to the first blank.
	f.Check, _, _, _ = parser.ParseDirective("check", data)
	res, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, At(err, request.ClassParse, nil)
	}
	if n := len(res.AST.Children); n > maxInstructions {
		return nil, Errorf(request.ClassParse, nil, "the Dockerfile has %d instructions, at most %d are read", n, maxInstructions)
	}
	f.ast, f.warnings, f.Escape = res.AST, res.Warnings, res.EscapeToken
	_, _, err = f.Instructions(Silent())
	return f, err
}

// Instructions returns the stages and the ARG instructions before the first of
// them. Each call makes them anew, since to evaluate an instruction is to
// change it. What the parser has to remark goes to lint, which must not be nil.
func (f *File) Instructions(lint *linter.Linter) ([]instructions.Stage, []instructions.ArgCommand, error) {
	for _, w := range f.warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	stages, args, err := instructions.Parse(f.ast, lint)
	if err != nil {
		return nil, nil, At(err, request.ClassParse, nil)
	}
	if len(stages) == 0 {
		return nil, nil, Errorf(request.ClassParse, nil, "dockerfile contains no stages to build")
	}
	return stages, args, nil
}

// Trigger parses one ONBUILD trigger. Its place is that of the FROM that fires it.
func Trigger(text string, from []parser.Range, lint *linter.Linter) (instructions.Command, error) {
	res, err := parser.Parse(bytes.NewReader([]byte(text)))
	if err != nil {
		return nil, trigger(err, text, from)
	}
	if len(res.AST.Children) != 1 {
		return nil, Errorf(request.ClassParse, from, "onbuild trigger should be a single expression: %q", text)
	}
	node := res.AST.Children[0]
	node.StartLine, node.EndLine = Lines(from)
	inst, err := instructions.ParseInstructionWithLinter(node, lint)
	if err != nil {
		return nil, trigger(err, text, from)
	}
	cmd, ok := inst.(instructions.Command)
	if !ok {
		return nil, Errorf(request.ClassParse, from, "FROM isn't allowed as an ONBUILD trigger")
	}
	return cmd, nil
}

// trigger places an error in a trigger at the FROM: the line numbers within the
// trigger mean nothing to the reader.
func trigger(err error, text string, from []parser.Range) error {
	e := *At(err, request.ClassParse, nil).(*Error)
	e.Msg = "ONBUILD " + text + ": " + e.Msg
	e.Line, e.EndLine = Lines(from)
	return &e
}

// Silent is a linter that remarks nothing.
func Silent() *linter.Linter { return linter.New(&linter.Config{}) }
