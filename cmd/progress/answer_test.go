package progress

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestAnswer(t *testing.T) {
	values := mask.New()
	for _, value := range []string{"hunter2", `q"uo\te`} {
		if err := values.Add([]byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name   string
		answer request.Called
		want   string
	}{
		{"text", request.Called{Text: []byte("A\n\nB\n")}, "A\n\nB\n"},
		{"hostile text", request.Called{Text: []byte("\x1b[31mred\x07\n::set-output name=a::b\n")}, "red^G\n\\::set-output name=a::b\n"},
		{"a secret", request.Called{Text: []byte("a hunt\x1b[mer2\n")}, "a ***\n"},
		{"a secret in JSON", request.Called{JSON: []byte(`{"a": "x hunter2 ##vso[", "b": "q\"uo\\te", "q": "uo"}`)}, `{"a": "x *** #\u0023vso[", "b": "***", "q": "uo"}`},
		{"JSON", request.Called{JSON: []byte("{\n  \"a\": \"b\"\n}\n")}, "{\n  \"a\": \"b\"\n}\n"},
		{"hostile JSON", request.Called{JSON: []byte("{\"a\":\"\u202e\u009b##vso[x]\U000e0001\x7f\"}\r\n")}, `{"a":"\u202e\u009b#\u0023vso[x]\udb40\udc01\u007f"}` + "\n"},
	} {
		var out strings.Builder
		if err := Answer(&out, tc.answer, values); err != nil || out.String() != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.name, out.String(), err, tc.want)
		}
	}
	var was, is any
	hostile := []byte("{\"a\":\"\u202e##\U000e0001\"}")
	text, err := cleanJSON(hostile, nil)
	if err != nil || json.Unmarshal(hostile, &was) != nil || json.Unmarshal([]byte(text), &is) != nil || was.(map[string]any)["a"] != is.(map[string]any)["a"] {
		t.Errorf("%q changed to %q, %v", hostile, text, err)
	}
	if err := Answer(&strings.Builder{}, request.Called{JSON: []byte("\x1b[2J")}, nil); err == nil {
		t.Error("what is no JSON was written")
	}
}
