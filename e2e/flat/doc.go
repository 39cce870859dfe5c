// Package flat turns an image into one tree by the OCI rules and compares
// trees. It judges what a builder made, so it shares no code with the builder:
// images are read with go-containerregistry and the standard library's tar.
//
// The rules (image-spec, layer.md; the conformance suite's README): all
// whiteouts and opaque markers of a layer hide what lower layers hold, then its
// entries are added; a directory over a directory changes the attributes only,
// any other replacement drops what was there with everything below it; hard
// links share one node until a name is replaced; parents are followed through
// symbolic links; missing parents are directories 0755 0:0.
package flat
