package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// compat are flags that are taken for the sake of those who have them.
type compat struct{}

func (b *Build) registerCompat() {}

// compatibility takes --allow, --hostname and flags that change nothing here.
func (b *Build) compatibility(_ *request.Build, _ From) error { return nil }
