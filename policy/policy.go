package policy

// Table is a seccomp allow-list: what no rule allows fails with EPERM.
type Table struct {
	// Rules are tried in any order: they must not overlap.
	Rules []Rule
}

// Rule says what happens to some system calls. Only two outcomes exist, since
// gVisor honours no other safely: the call is allowed, or it fails with Errno.
type Rule struct {
	Names []string
	// Errno is 0 to allow, else the error to fail with (filter only: the OCI
	// form knows EPERM alone, so there such a rule is left out).
	Errno uint
	// Args must all hold for the rule to apply; empty: always.
	Args []Arg
}

// Arg is a condition on one argument, by index from 0 to 5: the value masked
// with Mask equals Value, or, where Not is set, differs from it.
type Arg struct {
	Index uint
	Mask  uint64
	Value uint64
	Not   bool
}
