// Package canary looks for credentials where they must not be.
//
// A build gets credentials that nobody else has: for the registry of the base
// image, for the one that it pushes to, for a token server, and a secret of a
// step. While each of its sandboxes is at work the registries hold it there, and
// all memory of its processes on the host is read: that of the sentry with the
// executor and the steps in it, of its stubs and of the gofer, and every file
// that they have open. Afterwards everything that the build has written is read,
// unpacked too. Each credential is looked for in every form that it could have,
// and has to be found where it belongs: else the search would prove nothing.
//
// It reads memory of other processes, so it runs as root; the builds may run as
// somebody else.
package canary
