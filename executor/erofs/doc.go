// Package erofs writes EROFS images: read-only file systems that gVisor and Linux
// mount without unpacking anything (Documentation/filesystems/erofs.rst). It does
// not read them.
//
// An image is written front to back while the files come, so none of them ever
// stands in memory:
//
//	block 0        the superblock, known last; see Writer.Close
//	data           the contents of files, each from the beginning of a block
//	directories    whole blocks of entries
//	metadata       inodes, each with its extended attributes and, where they fit
//	               beside it in one block, its link target or last entries
//
// Files are never compressed and have no inlined tails: a program can then be
// mapped from the image as it is. What is in memory is the tree of names, some
// 300 bytes a file.
//
// The bytes depend on the tree and on the order in which contents were written,
// and on nothing else. Inodes have the extended form: 64-bit sizes and times with
// nanoseconds, 32-bit owners and link counts.
//
// The package touches nothing but the writer that it is given, and knows neither
// tars nor layers; executor/layer does.
package erofs
