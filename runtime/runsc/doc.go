// Package runsc knows gVisor's program: where it is, whether it is new enough,
// which flags it gets and why, how it is started and how everything that it
// started is ended.
//
// It may look for a program file, start it, and read and signal the processes
// that it started. It makes no bundle, opens no channel and decides nothing
// about a build: that is sandbox's.
package runsc
