package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// maxAnswer bounds the answer to a call, in bytes: it has to fit, in base64,
// into the frame with the result.
const maxAnswer = request.MaxFrame / 8 * 5

// answer is what a call found.
type answer interface {
	// text writes it for people, as docker buildx does.
	text(*bytes.Buffer)
	// failed says that the command has to fail.
	failed() bool
}

// call answers Build.Call. Its forms are those of docker buildx: the text, and
// the names and the order of the fields in JSON.
func call(ctx context.Context, req *request.Build, in *Inputs, images plan.Resolver, steps *Steps) (*request.Called, error) {
	// Of several platforms the first is looked at: they share the Dockerfile.
	opt, err := options(req)
	if err != nil {
		return nil, err
	}
	in.planWith(&opt)
	var a answer
	file, err := dockerfile.Parse(req.DockerfileName, in.Dockerfile)
	switch {
	case req.Call == request.CallCheck:
		a, err = callCheck(ctx, in, opt, images, parsed{req.DockerfileName, file, err, steps})
	case err != nil:
	case req.Call == request.CallOutline:
		a, err = callOutline(ctx, file, opt, images, steps)
	case req.Call == request.CallTargets:
		a, err = callTargets(file)
	default:
		err = dockerfile.Errorf(request.ClassUnsupported, nil, "--call %s is not supported", req.Call)
	}
	if err != nil {
		return nil, err
	}
	return encode(a, req.CallJSON)
}

// encode gives an answer the form that was asked for.
func encode(a answer, asJSON bool) (*request.Called, error) {
	var out bytes.Buffer
	if asJSON {
		e := json.NewEncoder(&out)
		e.SetIndent("", "  ")
		if err := e.Encode(a); err != nil {
			return nil, fmt.Errorf("encode the answer: %w", err)
		}
	} else {
		a.text(&out)
	}
	if out.Len() > maxAnswer {
		return nil, dockerfile.Errorf(request.ClassResource, nil, "the answer has %d bytes, at most %d can be told", out.Len(), maxAnswer)
	}
	called := &request.Called{Failed: a.failed()}
	if asJSON {
		called.JSON = out.Bytes()
	} else {
		called.Text = out.Bytes()
	}
	return called, nil
}

// location is a place in a Dockerfile as BuildKit writes it: one range a line.
type location struct {
	Ranges []lineRange `json:"ranges,omitempty"`
}

type lineRange struct {
	Start position `json:"start"`
	End   position `json:"end"`
}

type position struct {
	Line int `json:"line"`
}

// at is the place of some lines, from 1; 0: none.
func at(line, end int) *location {
	l := &location{}
	for n := line; n > 0 && n <= max(line, end); n++ {
		l.Ranges = append(l.Ranges, lineRange{position{n}, position{n}})
	}
	return l
}
