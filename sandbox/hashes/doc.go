// Package hashes remembers the SHA-256 of files of a build context from one build to
// the next, so that of a tree that did not change only the directories are read.
//
//	<directory>/<hex>    what is remembered of a context, by the hash of its path
//	<directory>/.new-*   one that is still being written
//
// A file is taken for the same if device, inode, size, mtime and ctime are. Nobody but
// the kernel sets a ctime; so it counts only on file systems of this machine's that do
// (Trusted), and a file that changed less than two seconds before it was read, or in
// the future, is not remembered: it may change again and look the same, which git calls
// racily clean.
//
// What is written appears whole (executor/whole); of two builds at once the last one's
// stays. What is damaged or of another form counts as empty. Number and size are
// bounded.
//
// The package runs in the launcher. It opens no file of a context and touches its
// directory and nothing else.
package hashes
