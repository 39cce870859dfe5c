// Package policy says what may happen inside, as data: the capabilities and the
// system calls of the executor and of RUN steps. Tables, written to be
// read in a review: each group has a purpose, each thing left out a reason. And
// the destinations that a sandbox may connect to, with the order in which rules
// are judged (Egress).
//
// Two filters stack. Filter 1 (ExecutorTable) is the seccomp section of the OCI
// spec: runsc loads it before the executor starts, so it holds for the executor
// and for everything that the executor starts. Filter 2 (RunTable) is loaded on
// top of it by the RUN child, just before it becomes the command.
//
// The package reads nothing, opens nothing and knows addresses only as values;
// ./filter turns a Table into a loaded filter, the room sandbox turns one into a
// spec, and sandbox/gateway asks an Egress about every flow.
package policy
