// Package progress shows a build to a person or a program: the events of the
// executor as a display on a terminal, as plain lines, or as JSON lines.
//
// It writes to the writer that it is given and to nothing else. Everything in
// an event was written by somebody who may want to deceive the reader: no
// control byte of it reaches the writer but newline and tab (see Clean), names
// and lines are bounded, and so is what is remembered. It must not decide
// anything, must not read the environment, and must not fail a build: an error
// of the writer ends the output, not the work.
package progress
