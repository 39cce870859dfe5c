// Kbuild-sandbox builds container images from Dockerfiles without a daemon: it
// runs the whole build inside gVisor, and is itself the part that stays
// outside.
//
// It parses the command line, finds gVisor and the executor, answers questions
// for registry credentials, shows the progress and writes the results. It
// looks into no Dockerfile, no archive and no image, and talks to no registry:
// all of that happens inside the sandbox, and no such code is linked in.
//
// This is the one room on the host that reads the environment and prints.
// Progress, warnings and errors go to standard error; the names and digests of
// what was built, and what spec, doctor and version answer, to standard output.
package main
