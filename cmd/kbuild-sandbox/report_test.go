package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// What a sandbox puts into the result of a build that succeeds is shown without
// the values of secrets, and JSON stays JSON.
func TestFinishMasks(t *testing.T) {
	const secret = `canary","kind":"x-41c7`
	var out, told strings.Builder
	a := &app{stdout: &out, stderr: &told, json: true, mask: mask.New()}
	for _, s := range []string{secret, "plain-canary-41c7", "materials"} {
		if err := a.mask.Add([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	res := request.Result{
		Digest: "sha256:" + strings.Repeat("a", 64), Size: 1 << 40, Media: secret,
		Names: []string{"example.com/plain-canary-41c7:1"}, Pushed: []string{"example.com/plain-canary-41c7:1"},
		Materials: []request.Material{{Kind: request.MaterialHTTP, URI: "http://x/" + secret}},
		Posture:   []request.RolePosture{{Role: request.RoleBuild, Inside: request.Posture{Kernel: secret, Seccomp: 2}}},
	}
	dir := t.TempDir()
	j := job{out: flags.Outputs{Metadata: filepath.Join(dir, "meta"), NameDigest: filepath.Join(dir, "names")}}
	if err := a.finish(j, res, nil, 0); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{"stdout": out.String(), "stderr": told.String()}
	for _, name := range []string{"meta", "names"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		shown[name] = string(data)
	}
	for where, text := range shown {
		if strings.Contains(text, "canary") || !strings.Contains(text, mask.Mask) || !strings.Contains(text, "sha256:aaaa") {
			t.Errorf("%s: %s", where, text)
		}
	}
	var line struct {
		Kind   string
		Result request.Result
	}
	err := json.Unmarshal([]byte(told.String()), &line)
	if err != nil || line.Kind != "result" || line.Result.Size != 1<<40 || len(line.Result.Materials) != 1 || len(line.Result.Posture) != 1 {
		t.Errorf("%v: %s", err, told.String())
	}
}

// A result without a secret in it is shown as it is.
func TestHidden(t *testing.T) {
	a := &app{mask: mask.New()}
	res := request.Result{
		Digest:  "sha256:" + strings.Repeat("a", 64),
		Failure: &request.Failure{Log: []byte("\xff")},
		Posture: []request.RolePosture{{Role: request.RoleBuild, Inside: request.Posture{GVisor: true, Denied: []string{"ptrace"}}}},
	}
	got, err := a.hidden(res)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(res)
	if have, _ := json.Marshal(got); string(have) != string(want) {
		t.Errorf("%s, not %s", have, want)
	}
}
