// Package filter turns a policy.Table into a seccomp filter of the calling
// thread, with libseccomp. It is the one room with cgo and runs inside only: in
// the RUN child, just before it becomes the command.
//
// It loads for one thread and asks libseccomp for nothing whose support would
// have to be probed: gVisor answers such probes as an old kernel does. It
// decides nothing: tables are in package policy.
package filter
