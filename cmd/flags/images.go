package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// images says how images are put together.
type images struct{}

func (b *Build) registerImages() {}

// imageOptions takes --annotation and --rewrite-timestamp.
func (b *Build) imageOptions(_ *request.Build, _ From) error { return nil }
