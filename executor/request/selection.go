package request

// Selection is what a copy takes of a context, as far as its digest goes.
type Selection struct {
	// Paths are the source arguments.
	Paths []string `json:"paths"`
	// Parents, Exclude and Chmod are flags of COPY.
	Parents bool     `json:"parents,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	Chmod   string   `json:"chmod,omitempty"`
}

// Contents asks for the digest of what a copy takes of a local context.
type Contents struct {
	Selection
	// Ignore are the patterns of the context's ignore file.
	Ignore []string `json:"ignore,omitempty"`
	// Learn says that there is no hurry and no answer: the files are to be known when
	// the next build asks.
	Learn bool `json:"learn,omitempty"`
}

// MaxContents is the largest Contents as JSON, in bytes: it has to fit into a frame.
const MaxContents = MaxFrame / 2
