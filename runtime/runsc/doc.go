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
// Whole builds, in seconds:
//
//	change                                      case A, a file changed            case D, cold                        taken
//	GOMAXPROCS of the sentry twice the CPUs     25.2 27.7 27.5 -> 29.4 25.9       43.5 46.6 45.1 49.5 48.6 ->         no
//	                                                                              42.3 42.5 42.2 49.9 44.6 38.5
//	  case C, cold: 22.5 22.4 17.5 -> 34.1 21.4 22.3; a quarter more memory
//	the same, and GOGC=400                      25.2 27.7 27.5 -> 26.9 29.9 28.1  -                                   no
//	systrap-disable-syscall-patching=true       20.2 24.2 19.9 -> 20.0 19.7 19.1  34.2 36.1 -> 38.9 42.5              no
//	  case C, cold: 18.2 17.1 -> 15.7 16.4
//
// The dentry cache and the kind of file access are of files behind a gofer: the context,
// which COPY reads once. Layers are EROFS or memory, and so is what steps write.
//
// gVisor runs the filters for every system call there is whenever a process is made
// (kernel.taskSeccomp.populateCache). Garbage collection is a tenth of the sentry's
// time, which is a third of all in A; runsc clears its environment, so GOGC and
// GOMAXPROCS would take a main of our own. What is left of A and D is switching between
// the program and the sentry (a quarter of the sentry's time), page faults, and the
// program. In D system calls are 15 % of all time, the host's kernel 32 %, most of it
// waking the other side, and 16 % the two processors wait for each other.
package runsc
