package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// FuzzServe lets an executor say anything: the launcher must neither crash nor
// hang nor write outside of the outputs.
func FuzzServe(f *testing.F) {
	frame := func(pairs ...any) []byte {
		var b bytes.Buffer
		w := request.NewWriter(&b)
		for i := 0; i < len(pairs); i += 2 {
			p, ok := pairs[i+1].([]byte)
			if !ok {
				p, _ = json.Marshal(pairs[i+1])
			}
			_ = w.Write(pairs[i].(request.FrameKind), p)
		}
		return b.Bytes()
	}
	good := request.Posture{GVisor: true, Seccomp: 2}
	f.Add(frame(request.FrameHello, good, request.FrameResult, request.Result{Version: request.Version}))
	f.Add(frame(request.FrameEvent, request.Event{Kind: request.EventInfo}, request.FrameAsk, request.Ask{Host: "x"}))
	f.Add(frame(request.FrameOutput, request.Output{Kind: request.OutputTar}, request.FrameChunk, []byte("\x00\x00\x00\x00x"), request.FrameEnd, request.OutputEnd{}))
	f.Add(frame(request.FrameOutput, request.Output{Kind: request.OutputBlob, Digest: "sha256:..", Size: 1}, request.FrameChunk, []byte("\x00\x00\x00\x00x")))
	f.Add([]byte("E\xff\xff\xff\xff"))
	f.Add(frame(request.FrameHello, good, request.FrameAsk, request.Ask{Scope: request.Secret, Name: "s"},
		request.FrameAsk, request.Ask{Scope: request.Agent, Name: "a", Data: []byte{11}}))
	f.Add(frame(request.FrameHello, good, request.FrameAsk, request.Ask{Scope: request.Secret, Name: "a", Data: []byte{13}}))
	f.Fuzz(func(t *testing.T, sent []byte) {
		dir := t.TempDir()
		st, err := openStore(filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := openOutputs(Outputs{LayoutDir: filepath.Join(dir, "l"), TarPath: filepath.Join(dir, "t")}, dir, st)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(sent)
		}()
		c := Config{Sink: noSink{}, Request: request.Build{Secrets: []string{"s"}, Agents: []string{"a"}}}
		c.Answer = func(_ context.Context, a request.Ask) request.Answer {
			if a.Scope == request.Secret && a.Name != "s" || a.Scope == request.Agent && a.Name != "a" {
				t.Errorf("answered: %+v", a)
			}
			return request.Answer{}
		}
		in := &intake{role: request.RoleBuild, store: st, out: out, open: map[uint32]incoming{}}
		s := newSession(ours, c, conversation{part: part{role: in.role}, in: in}, standing)
		start := time.Now()
		res, err := s.serve(t.Context())
		if err == nil && res.Failure == nil && s.posture == nil || len(res.Posture) > 0 {
			t.Errorf("success without walls, or a posture of its own: %+v", res)
		}
		if time.Since(start) > 5*time.Second {
			t.Error("hangs")
		}
		in.discard()
		if err := out.discard(); err != nil {
			t.Error(err)
		}
		var left []string
		for _, d := range []string{dir, filepath.Join(st.dir, "new")} {
			entries, err := os.ReadDir(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				left = append(left, e.Name())
			}
		}
		if !slices.Equal(left, []string{stagingName, "store"}) {
			t.Errorf("left: %v", left)
		}
	})
}
