// Package take says what a COPY or ADD takes from its source, and with which digest:
// which files the arguments name, what ignore file, --exclude and --parents leave of
// them, and what of a file counts.
//
// The step cache knows a copy by that digest, and three ask for it: the copy itself,
// while it reads the files anyway; a role that has the files and no copy yet; and the
// launcher, which has a local context at hand where a sandbox has to go through gVisor's
// gofer for each file, and which remembers what it has hashed. Three answers that
// differ in one byte would be a cache that never hits, or one that gives what was not
// asked for. So there is one selection and one digest, here, and nothing of a copy's
// destination is: that is step's, whose copies ask this room for every file.
//
// For the launcher's sake it has neither plans nor archives nor the network in its
// graph. What it walks may be hostile: paths are resolved by beneath, nothing is opened
// but directories and regular files, the contents of files are hashed and never looked
// at, and Care bounds depth, memory and time. It opens for reading, and must not print,
// dial, execute or keep anything.
package take
