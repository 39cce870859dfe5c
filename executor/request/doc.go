// Package request is the wall between the launcher on the host and the
// executor inside gVisor: everything that crosses it, in both directions, is
// one of the types in this package.
//
// Towards the executor go a Build (request.json, a read-only file) and
// Answers. Towards the launcher go Events, Asks, output chunks and one Result,
// as length-prefixed frames on one socket. Types and their encoding only: this
// package imports the standard library, reads no file and no environment, and
// decides nothing. Whoever reads a frame treats it as hostile: sizes are
// bounded before memory is taken, and unknown kinds are errors.
//
// The framing lives here, beside the types, because both sides need the same
// one and nothing else may cross (architecture, law 2).
package request
