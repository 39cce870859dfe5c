// Package secrets is the side of a build that has its secrets and SSH agents:
// the launcher on the host, or the executor itself in a pod. A Store gives them
// out by id, and only those that the command line lends.
//
// It reads the files of secrets and keys, once, before the build starts, and
// talks with SSH agents over their Unix sockets. For an agent it is a wall: the
// other side is a step that a stranger wrote, and of the agent protocol
// (draft-miller-ssh-agent) it gets the list of keys and signatures. It can add,
// remove and lock nothing, nor use an extension: such messages never reach the
// agent.
//
// It must not print, write a file, or hand out a path; errors that cross to the
// other side tell nothing about this one.
package secrets
