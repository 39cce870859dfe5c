package dockerfile

import (
	"errors"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
		line, end        int
	}{
		{"empty", "", "the Dockerfile cannot be empty", 0, 0},
		{"only comments", "# one\n# two\n", "file with no instructions", 2, 2},
		{"only ARG", "ARG A=1\n", "dockerfile contains no stages to build", 0, 0},
		{"no FROM", "RUN x\nFROM y\n", "no build stage in current context", 1, 1},
		{"unknown instruction", "FROM x\n\nCOPPY a b\n", "unknown instruction: COPPY (did you mean COPY?)", 3, 3},
		{"unknown flag", "FROM x\nCOPY --chmood=1 a b\n", "unknown flag: --chmood (did you mean chmod?)", 2, 2},
		{"continued", "FROM x\nLABEL \\\n  =v \\\n  b=c\n", "LABEL names can not be blank", 2, 4},
		{"heredoc", "FROM x\nRUN <<EOF\necho\n", "unterminated heredoc", 2, 3},
		{"long line", "FROM x\nRUN " + strings.Repeat("x", 70000), "greater than max allowed size", 0, 0},
		{"check above an instruction", "FROM x\n# check=skip=all\nNOPE\n", "unknown instruction: NOPE", 3, 3},
		{"too large", "FROM x\n" + strings.Repeat("#", MaxSize), "at most 8388608 are read", 0, 0},
		{"too many", strings.Repeat("FROM x\n", maxInstructions+1), "at most 100000 are read", 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("Dockerfile", []byte(tc.text))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if e.Class != request.ClassParse || !strings.Contains(e.Error(), tc.want) {
				t.Errorf("%s: %q, want parse: %q", e.Class, e, tc.want)
			}
			if strings.HasPrefix(e.Msg, "dockerfile parse error") {
				t.Errorf("%q repeats the line", e.Msg)
			}
			if tc.line != 0 && (e.Line != tc.line || e.EndLine != tc.end) {
				t.Errorf("lines %d-%d, want %d-%d", e.Line, e.EndLine, tc.line, tc.end)
			}
		})
	}
}

func TestDirectives(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("#!/usr/bin/env x\n# check=skip=A,B;error=true\n# syntax = docker/dockerfile:1.7 # old\nFROM x\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Syntax != "docker/dockerfile:1.7 # old" || f.SyntaxLine != 3 || f.Check != "skip=A,B;error=true" || f.Escape != '\\' {
		t.Errorf("syntax %q at %d, check %q, escape %q", f.Syntax, f.SyntaxLine, f.Check, f.Escape)
	}
	f, err = Parse("Dockerfile", []byte("# escape=`\nFROM x\nRUN a `\n b\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Escape != '`' {
		t.Errorf("escape %q", f.Escape)
	}
}

// Evaluating an instruction changes it, so each call has to give fresh ones.
func TestInstructionsAreFresh(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("FROM x\nENV a=b\n"))
	if err != nil {
		t.Fatal(err)
	}
	one, _, err := f.Instructions(Silent())
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := f.Instructions(Silent())
	if err != nil {
		t.Fatal(err)
	}
	if one[0].Commands[0] == two[0].Commands[0] {
		t.Error("the same instruction twice")
	}
}

func TestTrigger(t *testing.T) {
	from := []parser.Range{{Start: parser.Position{Line: 7}, End: parser.Position{Line: 8}}}
	// A comment with a check directive before the trigger once made the
	// instructions package dereference a missing linter.
	cmd, err := Trigger("# check=skip=all\nRUN x", from, Silent())
	if err != nil || cmd.Name() != "RUN" {
		t.Fatalf("%v, %v", cmd, err)
	}
	if a, b := Lines(cmd.Location()); a != 7 || b != 8 {
		t.Errorf("lines %d-%d", a, b)
	}
	for text, want := range map[string]string{
		"FROM y":       "FROM isn't allowed",
		"NOPE":         "ONBUILD NOPE: unknown instruction",
		"":             "no instructions",
		"RUN x\nRUN y": "single expression",
		"RUN <<E\nx\n": "unterminated heredoc",
	} {
		_, err := Trigger(text, from, Silent())
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Msg, want) || e.Line != 7 || e.EndLine != 8 {
			t.Errorf("%q: %+v, want %q at 7-8", text, err, want)
		}
	}
}

func TestExcerpt(t *testing.T) {
	const text = "FROM a\nRUN b\n\nCOPPY c\nRUN \\\n d\n"
	const bar = "--------------------\n"
	for _, tc := range []struct {
		name      string
		line, end int
		want      string
	}{
		{"middle", 4, 4, bar + "   2 |     RUN b\n   3 |     \n   4 | >>> COPPY c\n   5 |     RUN \\\n   6 |      d\n" + bar},
		{"range at the end", 5, 6, bar + "   4 |     COPPY c\n   5 | >>> RUN \\\n   6 | >>>  d\n" + bar},
		{"first", 1, 0, bar + "   1 | >>> FROM a\n   2 |     RUN b\n   3 |     \n" + bar},
		{"outside", 9, 9, ""},
		{"none", 0, 0, ""},
	} {
		if got := Excerpt([]byte(text), tc.line, tc.end); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestExcerptIsFitForATerminal(t *testing.T) {
	got := Excerpt([]byte("RUN \x1b[31mred \xff\r\n"+strings.Repeat("x", 1000)+"\n"), 1, 1)
	if strings.ContainsAny(got, "\x1b\r") || !strings.Contains(got, "RUN \ufffd[31mred \ufffd\n") {
		t.Errorf("%q", got)
	}
	if len(got) > 400 {
		t.Errorf("%d bytes", len(got))
	}
	long := Excerpt([]byte("RUN <<E\n"+strings.Repeat("x\n", 1000)), 1, 1000)
	if n := strings.Count(long, "\n"); n > excerptLines+3 {
		t.Errorf("%d lines", n)
	}
}
