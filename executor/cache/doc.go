// Package cache is the form in which results of steps lie in registries and in OCI
// layouts, and finds them there.
//
// A result is an image with one layer, the step's, whose config has the key of the step
// as a label, and its age as the time of its creation:
//
//	kbuild-sandbox.step         the key that the image is found by
//	kbuild-sandbox.step.result  for a COPY from a stage that is found by what it copies
//	                            from, the key of what it copies
//
// A repository has such an image under a tag for each key. A reference names an image
// index of the images of one build, and so does the index.json of a layout; an annotation
// kbuild-sandbox.step of each entry is its key. All of it is plain OCI, so that registries
// take it, and crane, skopeo and a registry's own clean-up can work with it.
//
// What is read is somebody else's: sizes are bounded, forms are checked, an image has to
// name the key that it was asked for by, and its layer is checked like a base's when it
// is unpacked. Nobody can check that it is what the step would have made: who can write
// to the place decides that.
//
// A place that does not answer, or answers nonsense, is told of once and not asked again:
// it has nothing. The room dials by package registry only, and touches no file.
package cache
