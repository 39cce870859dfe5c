package buildcontext

import "time"

// Repository is what is wanted of a git repository.
type Repository struct {
	// URL is the repository's, without fragment and query of BuildKit's own.
	URL string
	// Ref is a branch, tag or commit; empty: the remote's HEAD.
	Ref string
	// Subdir is the directory wanted, relative; empty: all.
	Subdir string
	// Commit is the checksum, a commit's hash or the beginning of one; empty: not
	// checked.
	Commit string
	// KeepGitDir keeps .git in the result.
	KeepGitDir bool
	// NoSubmodules leaves submodules out.
	NoSubmodules bool
	// CommitTime gives all files the time of the commit instead of now.
	CommitTime bool
	// FetchByCommit fetches Commit, which is whole then, and does not look at
	// where Ref is now.
	FetchByCommit bool
}

// Checkout is what was found.
type Checkout struct {
	Commit string    // full hash
	Time   time.Time // the commit's, of its committer
}
