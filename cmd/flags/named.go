package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// named are the named contexts.
type named struct{}

func (b *Build) registerNamed() {}

// namedContexts takes --build-context.
func (b *Build) namedContexts(_ *request.Build, _ From) error { return nil }
