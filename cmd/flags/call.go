package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// call says what is asked for instead of an image.
type call struct{}

func (b *Build) registerCall() {}

// calls takes --call and --check.
func (b *Build) calls(_ *request.Build, _ From) error { return nil }
