// Package posture measures the walls around the process that asks: kernel,
// seccomp filter, capabilities, user namespace, mounts, network, open files and
// its own program. It judges nothing.
//
// It reads /proc and its own program's file, asks the kernel for interfaces and
// routes, and tries system calls that the filter has to forbid, in a form that
// does nothing where it does not. It changes nothing, dials nothing and needs no
// right. It runs inside only.
package posture
