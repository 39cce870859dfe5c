// Package cgroup holds the processes of one build to limits of the host's
// kernel: memory, CPU and number of tasks. A Group is one control group, or one
// in each hierarchy that has a wanted controller (cgroup v1), made for one build
// and removed with it.
//
// # Where a group goes
//
// A build must not get out of limits that its caller is held to. In v1 the group
// is made below the caller's own. In v2 a group with processes can have no group
// with controllers below it, so it is made, in this order:
//
//   - below the caller's own group, where that may have such groups; if the
//     caller is alone in it (as under systemd-run --scope), it moves into a leaf
//     beside the build first, and back at the end;
//   - below the nearest group above that hands down the controllers, as long as
//     none on the way has a limit of its own.
//
// Processes are put in before they run: in v2 by clone3 (CLONE_INTO_CGROUP), in
// v1 by starting them from a thread that is in the groups.
//
// It may make and remove its own groups, write their files, read /proc, and signal
// the processes in its groups. It starts nothing, and it changes no group of
// somebody else but for what is handed down (cgroup.subtree_control).
package cgroup
