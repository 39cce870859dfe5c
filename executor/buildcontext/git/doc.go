// Package git fetches git repositories and checks out one commit of each: for
// ADD and for contexts.
//
// It must not execute, mount or print anything; it dials through
// executor/buildcontext.
package git
