// Package runsc knows gVisor's program: where it is, whether it is new enough,
// which flags it gets and why, how it is started and how everything that it
// started is ended.
//
// It may look for a program file, start it, and read and signal the processes
// that it started. It makes no bundle, opens no channel and decides nothing
// about a build: that is sandbox's.
//
// # What makes RUN faster, and what does not
//
// Seen in November 2026 on 2 busy cores, with the pinned gVisor. Case A of `make
// bench` is go vet and go build, case D dpkg --unpack of 105 packages; seconds of that
// step alone, alternately, first without and then with the change.
//
//	change                                      case A                  case D                  taken
//	seccomp filters as search trees             21.9 23.4 -> 21.8 22.5  29.5 27.8 -> 26.2       yes
//	  fork of a shell: 13.6 8.9 15.5 -> 5.8 9.9 7.9 ms
//	  of the sentry's time at work on filters: 30 % -> 11 % in D
//	systrap-disable-fast-path=true              22.1 22.7 -> 21.9 24.7  31.0 32.9 -> 33.0 33.3  no
//	shmem_enabled=advise, with app-huge-pages   21.8 22.5 -> 22.8 21.4  -                       no: the host's
//	GOGC=400 of the sentry                      21.8 19.0 17.4 -> 22.3 17.2 21.8  -             no
//
// gVisor runs the filters for every system call there is whenever a process is made
// (kernel.taskSeccomp.populateCache). Garbage collection is a tenth of the sentry's
// time, which is a third of all in A; runsc clears its environment, so GOGC would
// take a main of our own. What is left of A and D is switching between the program
// and the sentry (a quarter of the sentry's time), page faults, and the program.
package runsc
