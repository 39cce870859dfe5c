// Package whole makes files that appear whole or not at all, in a directory that
// several processes use, any of which may die at any moment.
//
//	<directory>/.new-*   a file that is not complete yet
//	<directory>/lock     held while several names change together
//
// Whoever writes a file holds a shared lock on it (flock(2)) until it has its name,
// and the kernel drops that lock with the process: what nobody holds has been left
// by a writer that died. Nothing is forced to the disk.
//
// The caches of both sides of the wall are kept with it; it imports nothing of the
// project and touches nothing but the directory that it is given.
package whole
