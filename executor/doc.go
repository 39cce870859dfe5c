// Package executor turns a request into an image: Fetch, Build and Push, each
// a plain function from store to store.
//
//	Inputs contexts that are fetched or unpacked, and the Dockerfile in them
//	Fetch  Dockerfile -> plan -> base images pulled into the store
//	Build  store and context -> steps -> layers -> image in the store
//	Push   image in the store -> destinations
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
// Build makes its plans anew from the store instead of taking Fetch's, so that
// the two can run in sandboxes of their own: what Fetch resolved stands in the
// store's index under the reference and the platform.
package executor
