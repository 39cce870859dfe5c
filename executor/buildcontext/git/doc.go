// Package git fetches git repositories and checks out one commit of each: for
// ADD and for contexts. There is no git in the executor, so it speaks to servers
// itself: by version 2 of git's protocol, or 0 where a server knows no other,
// over http, https, ssh and git://. Semantics are those of BuildKit's git
// source, which runs git; the tests compare with git.
//
// One pack is fetched a repository: what one commit needs, without history, or
// where a server gives no commit by its hash, all branches and tags. It lies in
// files without names in the workspace; no more than one object of 64 MiB is
// held in memory. The files are written from the tree objects themselves, with
// the line endings that .gitattributes asks for. Other conversions are not made:
// ident, working-tree-encoding, and filters, so that files in LFS stay pointers.
// No hook is run or written, no configuration read.
//
// Servers and repositories are hostile. Sizes, numbers, depths and silences are
// bounded (limits). A worktree is made of new names only, in directories that
// were made before: no name leads out, through a link or otherwise, or to
// git's own .git. Submodules are fetched by the same four ways only.
//
// A credential for web servers goes to the repository that was asked for, and to
// a submodule only if that lies below it or both are on github.com; a redirect to
// another host gets none. SSH takes the keys of the user's agent. A host's own
// key is not known before: like BuildKit, which asks each host for its key, the
// first one that is shown is trusted, and no other in the same checkout.
//
// Why no library: go-git holds each object of a pack in memory, speaks a protocol
// in which servers refuse a commit by its hash, and checks paths out in a way
// that follows links inside gVisor.
//
// It must not execute, mount or print anything; it dials through
// executor/buildcontext.
package git
