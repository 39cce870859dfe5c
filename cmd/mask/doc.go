// Package mask takes the values of secrets out of text that people and CI
// systems will read.
//
// It is a net for accidents: a step that runs with set -x, a tool that repeats
// its token in an error. A step that wants to print a secret can write it in a
// way that nobody looks for.
//
// It reads no file, no environment and no clock, keeps what it has to look for
// in bounded memory, and costs about the same for one secret as for hundreds.
// It must not print, and no error of it quotes a value.
package mask
