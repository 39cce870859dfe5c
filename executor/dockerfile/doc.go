// Package dockerfile turns the bytes of a Dockerfile into instructions, with
// BuildKit's parser and BuildKit's instructions package, so that what is a
// Dockerfile here is what is one there.
//
// It is pure: bytes in, values out. It opens no file, asks no registry and no
// clock, expands no variable and knows nothing about builds; a `# syntax=` line
// is read and reported, never fetched. Everything that the text alone decides
// (directives, unknown instructions and flags, missing arguments) is an error
// here, an *Error with the lines at fault; what needs arguments, stages or base
// images is decided by executor/plan.
package dockerfile
