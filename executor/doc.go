// Package executor turns a request into an image. Fetch, Build and Push are the
// roles that the launcher starts in sandboxes of their own; All plays them in one
// process, for pods. All four are made of the same parts:
//
//	check   destinations -> may they be pushed to
//	read    contexts that are fetched or unpacked, and the Dockerfile in them
//	pull    Dockerfile -> plan -> base images in the store
//	make    store and context -> steps -> layers -> image in the store
//	export  image in the store -> tar, OCI layout
//	push    image in the store -> destinations
//
// Fetch reads and pulls, Build reads what Fetch has handed out, makes and exports,
// and Push checks and pushes. While Build makes, Push uploads the layers that are ready
// (ahead.go); names come last, when there is an image. Nothing stays where Fetch runs: blobs stream out as
// they come, contexts follow as archives.
//
// Contexts come first. A directory of the caller's is used where it is; anything
// else is unpacked into the workspace as root's, links in it are followed below
// it only, and the Dockerfile and the ignore file are looked for in there.
//
// It decides the order of work, and nothing else: what a Dockerfile means is
// plan's, how a step is done is step's, how a layer looks is layer's. It mounts
// nothing, dials nothing and prints nothing; it tells what happens through a
// request.Sink.
//
// Of several platforms each has a plan of its own. Their steps are done one
// platform after the other, those that they have in common once, and an image
// index names the images.
//
// The plans are made anew from the store instead of taking Fetch's, so that no
// format of plans crosses between sandboxes: what Fetch resolved stands in the
// store's index under the reference and the platform.
//
// What steps have made is kept by their keys (stepkeys.go), by the launcher and in the
// places of request.Build.CacheFrom and CacheTo (package cache). Fetch looks up all steps
// before any is done (lookup.go), so that what nobody needs is never pulled (survey.go,
// wanted.go); build takes what was found (obtain.go), hands out what it has made for the
// launcher (keeper.go), and writes it as images for the places (results.go), to which
// push pushes it last.
package executor
