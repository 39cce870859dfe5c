// Package sandbox runs one executor inside gVisor: request and policy become a
// bundle, the bundle a running sandbox, the sandbox's frames a result.
//
// It may make and remove its own work directory, write the outputs that were
// asked for, start runsc and read /proc about it. It parses nothing that an
// attacker wrote but frames of bounded size (law 1: no Dockerfile parser, no
// archive format, no HTTP, no TLS, no registry in its graph). It prints nothing
// and reads no environment.
//
// The sandbox on the other side of the channel is taken for hostile: what it
// sends is bounded in size and number, an output is checked against its digest
// before it gets its name, and no string from it becomes a path, a flag, a mount
// or an annotation.
package sandbox
