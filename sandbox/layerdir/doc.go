// Package layerdir keeps the images of layers between builds, so that a base is
// pulled and converted once.
//
//	<directory>/.new-*         an image that is still being written
//	<directory>/<key>.erofs    an image, called by its layer's request.LayerKey
//	<directory>/<key>.json     {"size": bytes, "sha256": hex, "boot": id}
//
// An image appears whole, by a rename, and never changes. Nothing is forced to the
// disk: an image that was written, or checked, before the machine last started is
// checked against its digest before it is used, and removed if it is damaged.
//
// Whoever uses an image holds a shared lock on it (flock(2)), which ends with the
// process however that ends; only images that nobody holds are removed. When there
// are too many, those go first that were not used for longest.
//
// The package runs in the launcher, looks at no byte of an image but to compute
// its digest, and touches its directory and nothing else.
package layerdir
