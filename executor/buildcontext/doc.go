// Package buildcontext is where a build's own files come from: the context
// directory with its ignore file, whose patterns are take's to match, and the
// URLs of ADD. Git repositories have a room of their own below, which dials
// through this one.
//
// It reads the context and never changes it, and it is, beside
// executor/registry, the only room that dials. Both the ignore file and what a
// server sends are hostile input: sizes and times are bounded, and nothing in
// them chooses a path.
//
// It must not execute, mount or print anything.
package buildcontext
