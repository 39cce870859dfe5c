// Package trace writes what took how long in a build to a file, in Chrome's trace
// format (Trace Event Format, JSON array form), which Perfetto and chrome://tracing
// show.
//
// It is a request.Sink that stands before another one: every event is passed on.
// Each span is written when it has ended, so the memory that it takes is bounded,
// as is the file; and what ends the launcher leaves a file that can still be shown,
// as the format does not ask for its last bracket. Names come from sandboxes: they
// are masked, cut and escaped, and their times are put between the begin of the
// trace and now.
//
// A thread is one of the roles: its phases, which the launcher measures, or
// what it says of its own steps, in as many threads as there are steps at once.
//
// It must not print, must not decide anything, and must not hold up or end a build:
// what cannot be written is told by Close.
package trace
