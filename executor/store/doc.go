// Package store keeps blobs in OCI image-layout form (image-spec,
// image-layout.md): blobs/sha256/<hex>, index.json and oci-layout. It is the
// wall between the roles: fetch fills it, build adds to it, push empties it.
//
// Where one process plays all roles, a store is a directory of its own. Where
// each has a sandbox, the launcher alone writes to the directory: new blobs
// stream out to it, and what earlier roles left is mounted read-only. Names are
// looked up there only when they are there to stay: the sandbox's kernel would
// go on to say that one is missing, though it has come since.
//
// It touches its own directory only and streams: no blob stands in memory.
// Beside the layout there is sources.json: for each blob of a base image, pulled
// or not, the repository it can be had from.
package store
