// Package layer turns the upper directory of an overlay into a layer blob and a
// layer blob into a lower directory, and extracts the archives of ADD.
//
// Both directions use the overlay's own form on disk: a character device 0:0
// hides a name of the layers below (in the tar: .wh.NAME), the extended
// attribute user.overlay.opaque=y hides everything that they have in a
// directory (.wh..wh..opq). The tar that Pack writes depends on the directory's
// contents only: sorted, PAX where the old header cannot hold a value, no user
// names, times in nanoseconds.
//
// Input is hostile. Every path is walked component by component from a
// directory that is already open; no system call here follows a symbolic link
// that this package has not read itself, so nothing outside the root is read or
// written. Sizes, counts, expansion and path lengths are bounded by Limits.
//
// The package touches the directories that it is given and the store, and
// nothing else: it mounts nothing, executes nothing and dials nobody. It needs
// root's capabilities over the directory (chown, mknod; see Nodes for devices)
// and works faster under umask 0.
package layer
