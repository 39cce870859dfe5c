// Package rig holds what the end-to-end programs stand on: a registry on a
// loopback port, the base images `busybox` and `debian` made from Debian's own
// packages, and the search for what a build left behind.
//
// It runs Debian's programs, writes only to the directories it is given and to
// the user's cache directory, and knows nothing of the product but the names of
// its binaries.
package rig
