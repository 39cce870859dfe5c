package request

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func indexOf(entries ...string) []byte {
	x := resultIndex{SchemaVersion: 2, Manifests: []json.RawMessage{}}
	for _, e := range entries {
		key, digest, _ := strings.Cut(e, "=")
		raw, _ := json.Marshal(resultEntry{Descriptor{Digest: digest}, map[string]string{ResultKey: key}})
		x.Manifests = append(x.Manifests, raw)
	}
	b, _ := json.Marshal(x)
	return b
}

func TestMergeResults(t *testing.T) {
	many := make([]string, maxResults)
	for i := range many {
		many[i] = fmt.Sprintf("%d=x", i)
	}
	for _, tt := range []struct{ name, old, added, want string }{
		{"of others", string(indexOf("a=1", "b=2")), string(indexOf("c=3")), string(indexOf("a=1", "b=2", "c=3"))},
		{"renewed", string(indexOf("a=1", "b=2")), string(indexOf("a=3", "c=4")), string(indexOf("b=2", "a=3", "c=4"))},
		{"images", `{"manifests":[{"digest":"x","annotations":{"a":"b"}}]}`, string(indexOf("a=1")), strings.Replace(string(indexOf("a=1")), "[", `[{"digest":"x","annotations":{"a":"b"}},`, 1)},
		{"the oldest go", string(indexOf(many...)), string(indexOf("a=1")), string(indexOf(append(many[1:], "a=1")...))},
	} {
		if got, err := MergeResults([]byte(tt.old), []byte(tt.added)); err != nil || string(got) != tt.want {
			t.Errorf("%s: %.300s, %v, want %.300s", tt.name, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "x", "[]"} {
		if _, err := MergeResults([]byte(bad), indexOf()); err == nil {
			t.Errorf("%q was an index", bad)
		}
	}
}

// FuzzMergeResults: whatever lies there, the new results are in the new index.
func FuzzMergeResults(f *testing.F) {
	f.Add(indexOf("a=1", "b=2"))
	f.Fuzz(func(t *testing.T, old []byte) {
		got, err := MergeResults(old, indexOf("a=3"))
		if err != nil {
			return
		}
		var x resultIndex
		if err := json.Unmarshal(got, &x); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if last, err := result(x.Manifests[len(x.Manifests)-1]); err != nil || last.Digest != "3" {
			t.Errorf("%s: %v", got, err)
		}
	})
}
