package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// noImages is a resolver that nobody may ask.
type noImages struct{ t *testing.T }

func (n noImages) Resolve(_ context.Context, ref string, _ v1.Platform) (*plan.Resolved, error) {
	n.t.Errorf("%s was asked for", ref)
	return nil, errors.New("no images")
}

// heard keeps events.
type heard struct{ events []request.Event }

func (h *heard) Emit(e request.Event) { h.events = append(h.events, e) }

func ask(t *testing.T, text string, req request.Build) (*request.Called, []request.Event, error) {
	t.Helper()
	req.DockerfileName = "Dockerfile"
	var sink heard
	called, err := call(context.Background(), &req, &Inputs{Dockerfile: []byte(text)}, noImages{t}, NewSteps(&sink))
	return called, sink.events, err
}

// TestAnswersFit: an answer goes into the frame with the result, or is an error.
func TestAnswersFit(t *testing.T) {
	var wire bytes.Buffer
	w := request.NewWriter(&wire)
	for _, size := range []int{10, 200_000, 400_000, 700_000, 2_000_000} {
		text := "FROM scratch AS a\n" + strings.Repeat("# "+strings.Repeat("x", 97)+"\n", size/100)
		for _, c := range []request.Call{request.CallCheck, request.CallOutline, request.CallTargets} {
			called, _, err := ask(t, text, request.Build{Call: c, CallJSON: true})
			var known *dockerfile.Error
			switch {
			case errors.As(err, &known) && known.Class == request.ClassResource && size > 400_000:
			case err != nil:
				t.Errorf("%s of %d bytes: %v", c, size, err)
			default:
				if err := w.WriteJSON(request.FrameResult, request.Result{Called: called}); err != nil {
					t.Errorf("%s of %d bytes: %v", c, size, err)
				}
			}
		}
	}
	// A thousand remarks and more still can be told.
	called, _, err := ask(t, "FROM scratch\n"+strings.Repeat("ENV a b\n", 3000), request.Build{Call: request.CallCheck})
	if err != nil || !bytes.HasPrefix(called.Text, []byte("Check complete, 1000 warnings have been found!\n")) {
		t.Errorf("%v: %.80s", err, called.Text)
	}
	if err := w.WriteJSON(request.FrameResult, request.Result{Called: called}); err != nil {
		t.Error(err)
	}
}

// TestCheckTellsOfSyntax: a remark of ours is no violation of a rule.
func TestCheckTellsOfSyntax(t *testing.T) {
	called, events, err := ask(t, "# syntax=docker/dockerfile:2\nFROM scratch\n", request.Build{Call: request.CallCheck})
	if err != nil || string(called.Text) != "Check complete, no warnings found.\n" || called.Failed {
		t.Errorf("%+v, %v", called, err)
	}
	if len(events) != 1 || events[0].Kind != request.EventWarning || !strings.Contains(events[0].Text, "not fetched") {
		t.Errorf("events %+v", events)
	}
}

// TestCheckOfWhatIsNoDockerfile: there is an answer also where nothing can be read.
func TestCheckOfWhatIsNoDockerfile(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "ERROR: the Dockerfile cannot be empty\n",
		"RUN x\n":                               "ERROR: no build stage in current context\nDockerfile:1\n",
		"FROM x\nRUN <<E\n":                     "unterminated heredoc\nDockerfile:2\n",
		"# check=error=perhaps\nFROM scratch\n": "ERROR: failed to parse check options: ",
	} {
		called, _, err := ask(t, text, request.Build{Call: request.CallCheck})
		if err != nil || !called.Failed || !strings.Contains(string(called.Text), want) {
			t.Errorf("%q: %s, %v, want %q", text, called.Text, err, want)
		}
		called, _, err = ask(t, text, request.Build{Call: request.CallCheck, CallJSON: true})
		var got struct {
			Error struct{ Message string } `json:"buildError"`
		}
		if err != nil || !called.Failed || json.Unmarshal(called.JSON, &got) != nil || got.Error.Message == "" {
			t.Errorf("%q: %s, %v", text, called.JSON, err)
		}
	}
}

// TestUnknownCall: what a newer launcher asks is refused by name.
func TestUnknownCall(t *testing.T) {
	if _, _, err := ask(t, "FROM scratch\n", request.Build{Call: "explain"}); err == nil || !strings.Contains(err.Error(), "--call explain is not supported") {
		t.Errorf("%v", err)
	}
}
