// Package step carries out the instructions that change a stage's filesystem:
// RUN, COPY, ADD and WORKDIR, one file an instruction. Do is the one way in; it
// returns the upper directory with what the step changed.
//
// It is the only room that executes anything, and the RUN child in here is,
// beside executor/rootfs, the only code that mounts. Everything it finds in a
// stage's files or in the context was written by somebody else: paths are
// resolved below a root by the kernel, never joined by hand, and nothing of a
// stage is ever executed but by the command of a RUN, in namespaces of its own,
// with Docker's capabilities and behind the RUN seccomp filter
// (../../policy).
//
// Secrets and SSH agents come from outside, through Env, and last as long as the
// step that they are lent to. The socket of an agent is the one thing that this
// room serves.
//
// What a copy takes, and with which digest, is take's to say; where it goes to is
// decided here.
//
// It must not dial, print, read the environment or keep state between steps.
package step
