// Package store keeps blobs in OCI image-layout form (image-spec,
// image-layout.md): blobs/sha256/<hex>, index.json and oci-layout. It is the
// wall between the roles: fetch fills it, build adds to it, push empties it.
//
// It touches its own directory only and streams: no blob stands in memory.
// Beside the layout it keeps sources.json: for each blob of a base image, pulled
// or not, the repository it can be had from.
package store
