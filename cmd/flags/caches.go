package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// caches says what is kept between builds.
type caches struct{}

func (b *Build) registerCaches() {}

// cacheOptions takes --cache-dir.
func (b *Build) cacheOptions(_ *request.Build, _ From) error { return nil }
