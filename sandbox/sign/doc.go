// Package sign signs provenance, in a process that does nothing else: it gets
// statements on standard input and answers envelopes (secure-systems-lab/dsse)
// on standard output. The key is read there and nowhere else: the launcher has
// its path only.
//
// Serve is that process: it reads and decrypts the key, gives up what it does
// not need any more (Confine: files, sockets, programs, traces by others) and
// signs what is a statement in form, of bounded size. Signer is the launcher's
// end. The room must not read what a sandbox wrote, and must not sign bytes that
// are no statement.
package sign
