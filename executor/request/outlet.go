package request

import "io"

// Outlet takes what the executor hands out. It is safe for concurrent use.
type Outlet interface {
	// Open begins an output. Its number is the outlet's to give.
	Open(Output) (Stream, error)
	// Keep says what a stored blob is for: OutputKeep or OutputAhead.
	Keep(what Output) error
}

// Stream is an output that is open.
type Stream interface {
	io.Writer
	// Commit ends the output: it is complete. digest is that of a stored blob
	// whose Output did not say it, else empty.
	Commit(digest string) error
	// Close drops what came unless it was committed.
	Close() error
}
