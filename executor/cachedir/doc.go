// Package cachedir keeps cache mounts between builds: RUN --mount=type=cache.
//
// No directory of the host is writable inside the sandbox, so a cache mount is
// kept like a small image, as an ordered list of layers, the lowest first:
//
//	<directory>/lock               held while anything below is renamed or removed
//	<directory>/.new-*             a layer that is still being written
//	<directory>/<key>/index.json   {"layers": [{"digest", "size"}...], "used": time}
//	<directory>/<key>/<hex>        a layer, called by its digest
//
// A key is the SHA-256 of the cache's full name, which only the executor knows.
// A build takes the state of a cache at its first use. At its end it hands out
// a layer with what it changed, or, when there are many of them, all of the
// cache as one layer. Two builds at once do not meet: each goes on from the state
// that it took. Of two layers on the same state the first counts, the second is
// refused (ErrStale); a layer that is the whole cache always counts.
//
// The package is the one implementation of this form for both sides of the wall:
// the launcher writes with it what the executor hands out, the executor reads
// with it, and without a launcher does both. Therefore it imports of the project only
// how files are written whole, and parses no layer, only index.json, which it wrote itself; who
// unpacks a layer checks its digest. It touches its directory and nothing else.
package cachedir
