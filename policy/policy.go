package policy

// Table is a seccomp allow-list: what no rule names fails.
type Table struct {
	// Rules are tried in any order: they must not overlap.
	Rules []Rule
	// Default is the error of what no rule applies to; 0: EPERM. The OCI form
	// knows EPERM alone: a Table for it leaves this 0.
	Default uint
}

// Rule says what happens to some system calls. Few outcomes exist, since gVisor
// honours no other safely: the call is allowed, it fails with Errno, or nothing
// is done and it succeeds.
type Rule struct {
	// For is the purpose, in few words.
	For   string
	Names []string
	// Errno is 0 to allow, else the error to fail with (filter only: the OCI
	// form knows EPERM alone, so there such a rule is left out).
	Errno uint
	// Nothing is set where the call succeeds without being carried out (filter
	// only, with Errno 0).
	Nothing bool
	// Args must all hold for the rule to apply; empty: always. There is at most
	// one for each index, since neither libseccomp nor runsc takes more as "and".
	Args []Arg
}

// Arg is a condition on one argument, by index from 0 to 5: the value masked
// with Mask equals Value, or, where Not is set (and Mask is AllBits, for
// libseccomp compares no masked value that way), differs from it.
type Arg struct {
	Index uint
	Mask  uint64
	Value uint64
	Not   bool
}

// AllBits is the Mask of a comparison of the whole value.
const AllBits = ^uint64(0)

// The errors that tables use, as Linux numbers them on all architectures.
const (
	EPERM  = 1
	ENOSYS = 38
)
