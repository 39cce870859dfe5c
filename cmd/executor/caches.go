package main

import (
	"path/filepath"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// abandoned is the age from which a file that is not complete is taken for that of a
// writer that died: a living one writes all the time. Between pods that share a
// volume there are no locks that could tell.
const abandoned = time.Hour

// podCaches makes the cache directory ready, which is on a volume of the pod and
// is read and written here; nil: nothing is kept. The volume's owner and mode say
// nothing about who can write to it.
func podCaches(req *request.Build) (*cachedir.Dir, error) {
	if req.Caches == "" {
		return nil, nil
	}
	mounts := filepath.Join(string(req.Caches), "mounts")
	req.Caches = request.GuestPath(mounts)
	return cachedir.Open(mounts, req.CacheSize, abandoned)
}

// trim holds --cache-size at the end of a build.
func trim(caches *cachedir.Dir, sink request.Sink) {
	if _, err := caches.Trim(); err != nil {
		sink.Emit(request.Event{Time: time.Now(), Kind: request.EventWarning, Text: err.Error()})
	}
}
