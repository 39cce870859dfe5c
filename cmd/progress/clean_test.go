package progress

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain text", "hello\n\tworld\n", "hello\n\tworld\n"},
		{"no newline at the end", "hello", "hello"},
		{"empty lines stay", "a\n\n\nb\n", "a\n\n\nb\n"},
		{"only a newline", "\n", "\n"},
		{"nothing", "", ""},
		{"other scripts", "Grüße, 世界 🎉 e\u0301", "Grüße, 世界 🎉 e\u0301"},
		{"colours", "\x1b[1;31mred\x1b[0m \x1b[38;5;12mblue\x1b[m", "red blue"},
		{"erase and move", "\x1b[2K\x1b[1A\x1b[10;10Hx", "x"},
		{"save, reset, charset", "\x1b7\x1bc\x1b(Bx", "x"},
		{"title", "\x1b]0;title\x07x", "x"},
		{"link", "\x1b]8;;https://example.com\x1b\\text\x1b]8;;\x1b\\", "text"},
		{"clipboard", "\x1b]52;c;cm0gLXJmIC8=\x07x", "x"},
		{"device control string", "\x1bP+q544e\x1b\\x", "x"},
		{"application command, privacy message", "\x1b_G\x1b\\\x1b^p\x1b\\x", "x"},
		{"sequence without end", "\x1b[31", "^[[31"},
		{"title without end", "\x1b]0;title", "^[]0;title"},
		{"escape alone", "\x1b", "^["},
		{"escape before an escape", "\x1b\x1b[31mx", "^[x"},
		{"sequence broken by a control byte", "\x1b[3\x071m", "^[[3^G1m"},
		{"bell, backspace, delete, nul", "\a\b\x7f\x00", "^G^H^?^@"},
		{"line end of Windows", "a\r\nb\r\n", "a\nb\n"},
		{"carriage return overwrites nothing", "10%\r20%\r\n", "10%\n20%\n"},
		{"hidden by a carriage return", "evil\rfine", "evil\nfine"},
		{"form feed, vertical tab", "\f\v", "^L^K"},
		{"C1 as UTF-8", "\u009b31mx\u0085", `\u009b31mx\u0085`},
		{"C1 as a byte", "\x9b31mx", `\x9b31mx`},
		{"broken UTF-8", "a\xff\xc3", `a\xff\xc3`},
		{"overlong escape", "\xc0\x9b", `\xc0\x9b`},
		{"direction", "abc\u202edef\u2066\u200f", `abc\u202edef\u2066\u200f`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"invisible tags", "a\U000e0041b", `a\ue0041b`},
		{"byte order mark", "\ufeffa", `\ufeffa`},
		{"command of GitHub", "::set-output name=a::b\n  ::add-mask::x", "\\::set-output name=a::b\n  \\::add-mask::x"},
		{"no command", "a::b std::string", "a::b std::string"},
		{"old command of GitHub", "##[group]x y##[endgroup]", `#\#[group]x y#\#[endgroup]`},
		{"command of Azure", "x ##vso[task.setvariable variable=a]b", `x #\#vso[task.setvariable variable=a]b`},
		{"command of TeamCity", "##teamcity[buildStatus text='x']", `#\#teamcity[buildStatus text='x']`},
		{"a command made of parts", "#\x1b[m#vso[task.x]", `#\#vso[task.x]`},
		{"a command after colours", "\x1b[0m::error::x", `\::error::x`},
		{"headings of Markdown", "## title [link]", "## title [link]"},
		{"section of GitLab", "section_start:1560896352:x\r\x1b[0Kheader", "section_start:1560896352:x\nheader"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Clean(tt.in); got != tt.want {
				t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// checkSafe is what every output must hold, whatever came in.
func checkSafe(t *testing.T, what, out string) {
	t.Helper()
	if !utf8.ValidString(out) {
		t.Errorf("%s: broken UTF-8 in %q", what, out)
	}
	for _, r := range out {
		if (r < ' ' && r != '\n' && r != '\t') || r == 0x7f || deceiving(r) {
			t.Errorf("%s: %U in %q", what, r, out)
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##vso[") || strings.Contains(line, "##[") {
			t.Errorf("%s: a command in %q", what, line)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range corpus() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkSafe(t, "Clean", Clean(s))
		if again := Clean(Clean(s)); again != Clean(s) {
			t.Errorf("not stable: %q, then %q", Clean(s), again)
		}
		line, err := Line(request.Event{Kind: request.EventInfo, Text: s})
		if err != nil {
			t.Fatal(err)
		}
		checkSafe(t, "Line", string(line))
		var back request.Event
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if utf8.ValidString(s) && back.Text != s {
			t.Errorf("%q came back as %q", s, back.Text)
		}
		for _, columns := range []int{0, 1, 3, 4, 20, 80} {
			if got := fit(Clean(s), columns); columnsOf(got) > columns {
				t.Errorf("fit(%q, %d) = %q takes %d columns", s, columns, got, columnsOf(got))
			}
		}
	})
}

// corpus is text that tries to deceive a terminal or a CI system.
func corpus() []string {
	return []string{
		"", "\n", "a\r\nb", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\x1b]52;c;eA==\x1b\\", "\x1bP\x1b\\", "\x1b[", "\x1b", "\x9b1m",
		"\u009b1m", "\u202e", "\a\b\x00\x7f", "::set-output name=x::y", "##vso[task.x]", "##[group]", "#\x1b[m#vso[x]",
		"\xff\xfe", "\u2028::error::", "世界", "e\u0301\u0301", "\r::error::", "\x1b\x1b[0m[31m", "##\\vso[", "\U000e0041", "\ufeff::x", "\u2008::x",
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		in      string
		columns int
		want    string
	}{
		{"hello", 10, "hello"},
		{"hello", 5, "hello"},
		{"hello!", 5, "he..."},
		{"世界世界", 8, "世界世界"},
		{"世界世界", 7, "世界..."},
		{"世界世界", 6, "世..."},
		{"a\tb", 6, "a    b"},
		{"abcdef", 3, "..."},
		{"abcdef", 0, ""},
		{"abcdef", -1, ""},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
	} {
		if got := fit(tt.in, tt.columns); got != tt.want {
			t.Errorf("fit(%q, %d) = %q, want %q", tt.in, tt.columns, got, tt.want)
		}
	}
}
