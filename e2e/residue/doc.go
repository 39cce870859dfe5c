// Command residue is what a RUN step runs to see whether the step before left
// anything behind. "leave" leaves one of every kind that it is allowed to, and
// checks that it is seen; "look" in the next step has to find none of them.
//
// It prints one line a kind: left, refused (the step could not even leave it),
// found or none.
package main
