package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"strings"
	"testing"
)

func with(t testing.TB, values ...string) *Values {
	t.Helper()
	v := New()
	for _, value := range values {
		if err := v.Add([]byte(value)); err != nil {
			t.Fatalf("%q: %v", value, err)
		}
	}
	return v
}

// pieces sends text through a Stream in pieces of n bytes.
func pieces(v *Values, text string, n int) string {
	s := v.Stream()
	var out strings.Builder
	for text != "" {
		k := min(n, len(text))
		out.Write(s.Write([]byte(text[:k])))
		text = text[k:]
	}
	out.Write(s.Close())
	return out.String()
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, values, in, want string }{
		{"nothing to mask", "hunter2", "make all\nok\n", "make all\nok\n"},
		{"alone", "hunter2", "hunter2", "***"},
		{"in a line", "hunter2", "a hunter2 b\n", "a *** b\n"},
		{"twice, side by side", "hunter2", "hunter2hunter2 hunter2", "*** ***"},
		{"almost", "hunter2", "hunter hunte2 unter2", "hunter hunte2 unter2"},
		{"its begin at the end", "hunter2", "hunter", "hunter"},
		{"one begins in another", "abcdefgh", "abcabcdefgh", "abc***"},
		{"one overlaps itself", "abababab", "xababababababx", "x***x"},
		{"two that overlap", "abcdefgh|efghijkl", "xabcdefghijklx", "x***x"},
		{"one in another", "abcdefgh|cdef", "cdef abcdefgh", "*** ***"},
		{"long, whole", "0123456789abcdefghijklmnop", "<0123456789abcdefghijklmnop>", "<***>"},
		{"long, a part", "0123456789abcdefghijklmnop", "<56789abcdefghijklmn>", "<***>"},
		{"long, wrapped", "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", "0123456789abcdefghij\nklmnopqrstuvwxyzABCDEFG\n", "***\n***\n"},
		{"over a newline nothing begins", "ab cd ef", "ab cd\n ef", "ab cd\n ef"},
		{"its own newline", "hunter2\n", "<hunter2>", "<***>"},
		{"lines", "first line here\nsecond line here\n", "second line here, first line here", "***, ***"},
		{"a short line of several", "a\nlong enough line", "a long enough line", "a ***"},
		{"the armour of a key", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG", "-----BEGIN PRIVATE KEY-----\n***"},
		{".env", "A=some-token-x\nB='other token y'\n", "some-token-x, other token y", "***, ***"},
		{"netrc", "machine example.com login me password correct-horse\n", "correct-horse example.com", "*** example.com"},
		{"npmrc", "//registry.example.com/:_authToken=npm_0123456789\n", "npm_0123456789", "***"},
		{"YAML and JSON", "a: yaml-value\n\"b\": \"json-value\",\n", "yaml-value json-value", "*** ***"},
		{"a ruler in a file", "# ============================\nlong enough line", strings.Repeat("=", 40), strings.Repeat("=", 40)},
		{"bytes of no text", "\xff\xfe\x00\x01\x02", "\xff\xfe\x00\x01\x02 \xff\xfe", "*** \xff\xfe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := with(t, strings.Split(tt.values, "|")...)
			if got := v.Text(tt.in); got != tt.want {
				t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
			}
			for n := 1; n < 20; n++ {
				if got := pieces(v, tt.in, n); got != tt.want {
					t.Errorf("%q in pieces of %d: %q, want %q", tt.in, n, got, tt.want)
				}
			}
		})
	}
}

// TestHeldBack: only what may be the begin of a value waits, and none of a line
// that has ended.
func TestHeldBack(t *testing.T) {
	s := with(t, "hunter2").Stream()
	for _, step := range []struct{ in, want string }{
		{"a hunt", "a "}, {"ing\n", "hunting\n"}, {"hunte\n", "hunte\n"}, {"50%\rhunt\r", "50%\rhunt\r"}, {"hunter", ""}, {"2", ""}, {"! and more of the line", "***! and more of the line"},
	} {
		if got := string(s.Write([]byte(step.in))); got != step.want {
			t.Errorf("after %q: %q, want %q", step.in, got, step.want)
		}
	}
	if got := string(s.Close()); got != "" {
		t.Errorf("at the end: %q", got)
	}
}

// TestForms writes values as other programs write them.
func TestForms(t *testing.T) {
	js := func(text string) string {
		b, err := json.Marshal(map[string]string{"k": text})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bash := func(script, arg string) string {
		out, err := exec.Command("bash", "-c", script, "x", arg).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, value := range []string{"s3cr", "hunter2", "pa ss/w+rd=?&<>", `it's "quoted"\ $HOME`, "grüße-äöü", "glpat-0123456789abcdefABCD", strings.Repeat("0123456789abcdef", 5)} {
		v := with(t, value)
		for name, text := range map[string]string{
			"as it is":                    value,
			"base64":                      base64.StdEncoding.EncodeToString([]byte(value)),
			"base64 of user:password":     base64.StdEncoding.EncodeToString([]byte("a:" + value)),
			"base64 of a longer user":     base64.StdEncoding.EncodeToString([]byte("ab:" + value)),
			"base64 of a still longer":    base64.StdEncoding.EncodeToString([]byte("abc:" + value)),
			"base64 with a newline":       base64.StdEncoding.EncodeToString([]byte(value + "\n")),
			"base64 in a text":            base64.StdEncoding.EncodeToString([]byte("ab:" + value + "cdef")),
			"base64 for URLs":             base64.URLEncoding.EncodeToString([]byte("abc:" + value)),
			"base64 for URLs, no padding": base64.RawURLEncoding.EncodeToString([]byte("abc:" + value)),
			"base64, no padding":          base64.RawStdEncoding.EncodeToString([]byte(value)),
			"hex":                         hex.EncodeToString([]byte(value)),
			"hex in capitals":             strings.ToUpper(hex.EncodeToString([]byte(value))),
			"query":                       url.QueryEscape(value),
			"path":                        url.PathEscape(value),
			"password of a URL":           url.UserPassword("me", value).String(),
			"JSON":                        js(value),
			"printf %q":                   bash(`printf '%q ' "$1"`, value),
			"set -x":                      bash(`set -x; : "$1"`, value),
		} {
			if name == "password of a URL" && strings.ContainsAny(value, "&=+ü") || strings.Contains(value, "ü") && name == "printf %q" {
				continue // another set of escapes
			}
			got := v.Text(text)
			if !strings.Contains(got, Mask) || longestPart(got, text) > 8 {
				t.Errorf("%s of %q: %q became %q", name, value, text, got)
			}
		}
	}
}

// longestPart is the longest piece of text that is still to be read in masked,
// without the names around a value.
func longestPart(masked, text string) int {
	longest := 0
	for part := range strings.SplitSeq(masked, Mask) {
		if strings.Contains(text, part) {
			longest = max(longest, len(part))
		}
	}
	return longest
}

func TestAdd(t *testing.T) {
	v := New()
	for value, want := range map[string]error{"": nil, "abc": ErrShort, "abcd": nil, "\n\n": ErrShort, "a\nb\nc": ErrShort, "abc\n": ErrShort} {
		if err := v.Add([]byte(value)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", value, err, want)
		}
	}
	if got := v.Text("abc 616263 YWJj"); got != "abc 616263 YWJj" {
		t.Errorf("a short value is masked: %q", got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	big := make([]byte, 500<<10)
	for i := range big {
		big[i] = byte('!' + r.IntN(90))
	}
	if err := v.Add(big); !errors.Is(err, ErrMuch) {
		t.Errorf("500 KiB: %v", err)
	}
	if got := v.Text(string(big[100:200])); got != Mask {
		t.Errorf("the begin of a large value: %q", got)
	}
	var none *Values
	if got := none.Text("x") + string(none.Stream().Write([]byte("y"))); got != "xy" || none.Add([]byte("abcd")) != nil {
		t.Errorf("no values: %q", got)
	}
}

func TestAddURLs(t *testing.T) {
	v := New()
	v.AddURLs("build", "https://me:p%40ssword@git.example.com/x.git#main", "ssh://git@git.example.com/x",
		"https://ghp_0123456789abcdef@github.com/x", "--http-proxy=http://u:pr0xy@proxy:3128", "https://host/a:b@c")
	for in, want := range map[string]string{
		"p%40ssword and p@ssword": "*** and ***",
		"git.example.com, me":     "git.example.com, me",
		"ghp_0123456789abcdef":    "***",
		"pr0xy a:b@c":             "*** a:b@c",
	} {
		if got := v.Text(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzStream puts values between other text and cuts it anywhere.
func FuzzStream(f *testing.F) {
	f.Add("hunter2", "a ", "b\n", 3)
	f.Add("abababab", "ab", "aba", 1)
	f.Add("0123456789abcdefghijklmnop", "01234", "mnop", 7)
	f.Add("line one here\nline two here", "line", "\n", 5)
	f.Add("-----BEGIN X-----\nMIIEvQIBADANBgkqhkiG", "x", "y", 2)
	f.Add("\xff\x00\xff\x00 \xff", "\xff", "\x00", 4)
	f.Fuzz(func(t *testing.T, value, before, after string, n int) {
		if len(value) > 4<<10 {
			return
		}
		v := New()
		if err := v.Add([]byte(value)); err != nil || value == "" {
			return
		}
		text := before + value + after + base64.StdEncoding.EncodeToString([]byte(before+value)) + "\n" + hex.EncodeToString([]byte(value))
		whole := v.Text(text)
		if got := pieces(v, text, 1+max(n, -n)%40); got != whole {
			t.Errorf("%q in pieces: %q, whole: %q", text, got, whole)
		}
		for _, atom := range atoms([]byte(value)) {
			if len(atom) >= minValue && !bytes.Contains(atom, []byte("*")) && !hasRuler(atom) && strings.Contains(whole, string(atom)) {
				t.Errorf("%q is in %q", atom, whole)
			}
		}
		if len(whole) > len(text)+len(Mask) && !strings.Contains(whole, Mask) {
			t.Errorf("%q grew to %q", text, whole)
		}
		if other := strings.Repeat(".", 40); v.Text(other) != other && !strings.Contains(value, "...") {
			t.Errorf("%q masks dots", value)
		}
	})
}

func hasRuler(atom []byte) bool {
	for i := range len(atom) - gramSize + 1 {
		if ruler(atom[i : i+gramSize]) {
			return true
		}
	}
	return false
}

func BenchmarkStream(b *testing.B) {
	var log bytes.Buffer
	for i := 0; log.Len() < 1<<20; i++ {
		fmt.Fprintf(&log, "[%4d/2000] cc -O2 -Wall -Iinclude -c src/module_%d.c -o build/module_%d.o\n", i, i, i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	token := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[r.IntN(62)]
		}
		return string(b)
	}
	for _, count := range []int{0, 1, 10, 100} {
		v := New()
		for range count {
			if err := v.Add([]byte(token(12 + r.IntN(60)))); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("%d-values", count), func(b *testing.B) {
			b.SetBytes(int64(log.Len()))
			for b.Loop() {
				s := v.Stream()
				for p := log.Bytes(); len(p) > 0; p = p[min(4096, len(p)):] {
					s.Write(p[:min(4096, len(p))])
				}
				s.Close()
			}
		})
	}
}
