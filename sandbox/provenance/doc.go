// Package provenance writes down how an image was built: in-toto statements
// with SLSA's provenance predicate (buildtype.md says what each field means),
// and the forms in which they travel: attestation manifests in an image index,
// as BuildKit has them, and manifests for cosign.
//
// What goes in is data that the launcher has: the request as the user wrote it,
// digests that the launcher has computed, counts of the gateways, and claims of
// the executors, which are marked as such and checked in form. What comes out
// is bytes. The room reads no file, opens no connection and signs nothing; of
// what a sandbox made it sees one bounded result, and never a blob.
//
// No credential may get into a statement: user names and passwords of URLs are
// taken out here (redact.go), and values of secrets never get here.
package provenance
