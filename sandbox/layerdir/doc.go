// Package layerdir keeps layers between builds, so that a base is pulled and converted
// once, and a step done once: as images that are mounted, and as blobs that are pushed.
//
//	<directory>/.new-*, lock     see executor/whole
//	<directory>/<key>.erofs      an image, called by its layer's request.LayerKey
//	<directory>/blob-<hex>.blob  a layer as it is pushed, called by its digest
//	<directory>/<key>.json       {"size": bytes, "sha256": hex, "boot": id, "inode"}, of both
//	<directory>/<hex>.step       what is known of a step, by its key
//	<directory>/<hex>.last       which images a build needed last time
//
// An image appears whole, by a rename, and never changes. Nothing is forced to the
// disk: an image that was written, or checked, before the machine last started is
// checked against its digest before it is used, and removed if it is damaged; so is
// one that was copied to where it lies.
//
// Whoever uses an image holds a shared lock on it (flock(2)), which ends with the
// process however that ends; only images that nobody holds are removed. When there
// are too many bytes, those go first that were not used for longest, and notes with them.
//
// The package runs in the launcher, looks at no byte of an image but to compute
// its digest, and touches its directory and nothing else.
package layerdir
