package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFramesCross(t *testing.T) {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	big := bytes.Repeat([]byte("x"), MaxFrame)
	for _, f := range []struct {
		kind    FrameKind
		payload []byte
	}{{FrameChunk, big}, {FrameEnd, nil}, {FrameCancel, []byte{}}} {
		if err := w.Write(f.kind, f.payload); err != nil {
			t.Fatal(err)
		}
	}
	event := Event{Time: time.Unix(1, 2).UTC(), Kind: EventLog, Step: 3, Stream: 1, Data: []byte("\xff\x00")}
	if err := w.WriteJSON(FrameEvent, event); err != nil {
		t.Fatal(err)
	}
	r := NewReader(iotestOneByte{&wire})
	for _, want := range []int{MaxFrame, 0, 0} {
		if _, p, err := r.Next(); err != nil || len(p) != want {
			t.Fatalf("%d bytes, %v; want %d", len(p), err, want)
		}
	}
	kind, p, err := r.Next()
	if err != nil || kind != FrameEvent {
		t.Fatalf("%c, %v", kind, err)
	}
	var got Event
	if err := Decode(kind, p, &got); err != nil || !reflect.DeepEqual(got, event) {
		t.Errorf("%+v, %v; want %+v", got, err, event)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

// iotestOneByte makes every read short.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) {
	if len(p) > 4096 {
		p = p[:4096]
	} else if len(p) > 1 {
		p = p[:1]
	}
	return o.r.Read(p)
}

func TestMalformedFrames(t *testing.T) {
	for name, c := range map[string]struct {
		wire string
		want error
	}{
		"unknown kind":         {"?\x00\x00\x00\x00", ErrFrame},
		"too long":             {"C\x00\x10\x00\x01", ErrFrame},
		"as long as can be":    {"C\xff\xff\xff\xff", ErrFrame},
		"cut in the header":    {"E\x00\x00", io.ErrUnexpectedEOF},
		"cut in the payload":   {"E\x00\x00\x00\x04{}", io.ErrUnexpectedEOF},
		"cut before a payload": {"E\x00\x00\x00\x04", io.ErrUnexpectedEOF},
		"nothing":              {"", io.EOF},
	} {
		if _, _, err := NewReader(strings.NewReader(c.wire)).Next(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := NewWriter(io.Discard).Write(FrameChunk, make([]byte, MaxFrame+1)); !errors.Is(err, ErrFrame) {
		t.Errorf("a payload that is too long was written: %v", err)
	}
	if err := Decode(FrameEvent, []byte("{"), &Event{}); !errors.Is(err, ErrFrame) {
		t.Errorf("broken JSON: %v", err)
	}
}

// TestFramesStayWhole: many writers, no frame inside another.
func TestFramesStayWhole(t *testing.T) {
	pr, pw := io.Pipe()
	w := NewWriter(pw)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 200 {
				if err := w.WriteJSON(FrameEvent, Event{Kind: EventLog, Step: i, Data: bytes.Repeat([]byte{byte(i)}, 100*i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); pw.Close() }()
	r := NewReader(pr)
	for n := 0; ; n++ {
		kind, p, err := r.Next()
		if err == io.EOF && n == 1600 {
			return
		}
		var e Event
		if err == nil {
			err = Decode(kind, p, &e)
		}
		if err != nil || len(e.Data) != 100*e.Step {
			t.Fatalf("frame %d: %v, step %d with %d bytes", n, err, e.Step, len(e.Data))
		}
	}
}

// FuzzFrames: no input makes the reader panic, take more memory than a frame
// has, or return what was not on the wire.
func FuzzFrames(f *testing.F) {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	for _, v := range []struct {
		kind FrameKind
		v    any
	}{{FrameEvent, Event{Kind: EventPlan}}, {FrameAsk, Ask{ID: 1, Host: "h"}}, {FrameOutput, Output{Kind: OutputTar}}, {FrameResult, Result{}}} {
		if err := w.WriteJSON(v.kind, v.v); err != nil {
			f.Fatal(err)
		}
		f.Add(wire.Bytes())
	}
	f.Add([]byte("C\x00\x10\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		var again bytes.Buffer
		w := NewWriter(&again)
		for {
			kind, p, err := r.Next()
			if err != nil {
				break
			}
			if err := w.Write(kind, p); err != nil {
				t.Fatal(err)
			}
			for _, v := range []any{&Event{}, &Ask{}, &Output{}, &Result{}, &Answer{}} {
				_ = Decode(kind, p, v)
			}
		}
		if !bytes.HasPrefix(in, again.Bytes()) {
			t.Fatalf("%q was read from %q", again.Bytes(), in)
		}
		if cap(r.buf) > MaxFrame {
			t.Fatalf("a buffer of %d bytes", cap(r.buf))
		}
	})
}

// TestRequestKeepsItsMeaning: what one side writes the other reads.
func TestRequestKeepsItsMeaning(t *testing.T) {
	want := Build{
		Version: Version, Context: "/context", Dockerfile: "/in/Dockerfile", DockerfileName: "a/Dockerfile",
		Args: []KeyValue{{"A", ""}, {"A", "x=y"}}, Destinations: []string{"r/x:1"}, Created: time.Unix(7, 0).UTC(),
		Registry: Registry{Certificates: map[string][]byte{"h:1": []byte("pem")}, Maps: []Mirror{{"a", "b/c"}}},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Build
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
