// Package beneath finds and lists files beneath a directory, whatever somebody has put
// there: a path is walked one component at a time, each opened relative to the one
// before it and never followed. Links are read and walked here, so none leads out.
//
// It is where step, take and the launcher get their directories from. It opens for
// reading and changes nothing; it must not dial, print or keep state.
package beneath
