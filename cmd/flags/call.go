package flags

import (
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// call says what is asked for instead of an image.
type call struct {
	method string
	check  bool
}

func (b *Build) registerCall() {
	fs, c := b.set, &b.call
	fs.BoolVar(&c.check, "check", false, "carry out the build checks, build nothing; the same as --call check")
	fs.StringVar(&c.method, "call", "build", "what is wanted, a `method`: build, check, outline (arguments and secrets of the target) or targets (the stages); with ,format=json as JSON")
	group(fs, groupSource, "check", "call")
}

// calls takes --call and --check. Where something else than an image is wanted
// nothing is pushed or written.
func (b *Build) calls(r *request.Build, _ From) error {
	method, err := parseCall(b.call.method)
	if err != nil {
		return err
	}
	if b.call.check {
		if b.set.Changed("call") && method.call != request.CallCheck {
			return usagef("", "--check cannot be used with --call=%s", b.call.method)
		}
		method.call = request.CallCheck
	}
	r.Call, r.CallJSON = method.call, method.json && method.call != ""
	return nil
}

// method is what --call names; an empty call: an image is built.
type method struct {
	call request.Call
	json bool
}

// parseCall reads a method and its options in docker buildx's form.
func parseCall(text string) (method, error) {
	const want = "want build, check, outline or targets, for example --call=targets,format=json"
	m, named := method{}, false
	for field := range strings.SplitSeq(text, ",") {
		key, value, isOption := strings.Cut(strings.TrimSpace(field), "=")
		switch {
		case isOption && key == "format" && (value == "json" || value == "text"):
			m.json = value == "json"
		case isOption && key == "format":
			return m, usagef("", "--call: format=%s: want text or json", value)
		case isOption && key == "ignorestatus":
			// Remarks do not fail a check here, so there is no status to ignore.
			if _, err := strconv.ParseBool(value); err != nil {
				return m, usagef("", "--call: ignorestatus=%s: want true or false", value)
			}
		case isOption || named:
			return m, usagef(want, "--call: %q: not a method", text)
		case key == "lint":
			m.call, named = request.CallCheck, true
		case key == string(request.CallCheck), key == string(request.CallOutline), key == string(request.CallTargets):
			m.call, named = request.Call(key), true
		case key == "build" || key == "":
			named = true
		default:
			return m, usagef(want, "--call: %s: not a method", key)
		}
	}
	return m, nil
}
