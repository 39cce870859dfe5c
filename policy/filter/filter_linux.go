package filter

import (
	"errors"
	"fmt"
	"strings"

	seccomp "github.com/seccomp/libseccomp-golang"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// binaryTree is libseccomp's level of SCMP_FLTATR_CTL_OPTIMIZE for filters that
// find a system call in O(log n) steps.
const binaryTree = 2

// Load makes t the newest filter of the calling thread, which the caller has
// locked (runtime.LockOSThread) and on which it goes on to exec. It needs
// CAP_SYS_ADMIN or no_new_privs, and sets neither. A name that this libseccomp
// does not know is an error: a table is loaded whole or not at all.
func Load(t policy.Table) error {
	f, err := compile(t)
	if err != nil {
		return err
	}
	defer f.Release()
	if err := f.Load(); err != nil {
		return fmt.Errorf("load seccomp filter: %w", err)
	}
	return nil
}

// Check returns an error that names what Load could not compile.
func Check(t policy.Table) error {
	f, err := compile(t)
	if err != nil {
		return err
	}
	f.Release()
	return nil
}

func compile(t policy.Table) (*seccomp.ScmpFilter, error) {
	if err := known(t); err != nil {
		return nil, err
	}
	errno := t.Default
	if errno == 0 {
		errno = policy.EPERM
	}
	f, err := seccomp.NewFilter(failing(errno))
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	// The Go binding asks for all threads (TSYNC) by itself and has no way to
	// take that back but this one, which returns every attribute to its default.
	if err := f.Reset(failing(errno)); err != nil {
		f.Release()
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	// The caller has CAP_SYS_ADMIN; no_new_privs would break set-id programs.
	if err := f.SetNoNewPrivsBit(false); err != nil {
		f.Release()
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	// A tree instead of a list: gVisor runs the whole filter for every system call
	// there is each time that a process is made, to know what it may answer without
	// (kernel.taskSeccomp.populateCache).
	if err := f.SetOptimize(binaryTree); err != nil {
		f.Release()
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	for _, r := range t.Rules {
		if r.Errno == errno && !r.Nothing {
			continue // libseccomp refuses a rule that repeats the default
		}
		if err := add(f, r); err != nil {
			f.Release()
			return nil, fmt.Errorf("seccomp rule %q: %w", r.For, err)
		}
	}
	return f, nil
}

func failing(errno uint) seccomp.ScmpAction {
	return seccomp.ActErrno.SetReturnCode(int16(errno))
}

func add(f *seccomp.ScmpFilter, r policy.Rule) error {
	action := seccomp.ActAllow
	if r.Errno != 0 || r.Nothing {
		action = failing(r.Errno) // error 0 is success
	}
	conds, err := conditions(r.Args)
	if err != nil {
		return err
	}
	for _, name := range r.Names {
		call, err := seccomp.GetSyscallFromName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(conds) == 0 {
			err = f.AddRule(call, action)
		} else {
			err = f.AddRuleConditional(call, action, conds)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func conditions(args []policy.Arg) ([]seccomp.ScmpCondition, error) {
	var conds []seccomp.ScmpCondition
	seen := map[uint]bool{}
	for _, a := range args {
		if a.Index > 5 || seen[a.Index] {
			return nil, fmt.Errorf("argument %d: out of range or named twice", a.Index)
		}
		seen[a.Index] = true
		cond, err := condition(a)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", a.Index, err)
		}
		conds = append(conds, cond)
	}
	return conds, nil
}

func condition(a policy.Arg) (seccomp.ScmpCondition, error) {
	switch {
	case a.Not && a.Mask != policy.AllBits:
		return seccomp.ScmpCondition{}, errors.New("not supported: a masked value that differs")
	case a.Not:
		return seccomp.MakeCondition(a.Index, seccomp.CompareNotEqual, a.Value)
	case a.Mask == policy.AllBits:
		return seccomp.MakeCondition(a.Index, seccomp.CompareEqual, a.Value)
	}
	return seccomp.MakeCondition(a.Index, seccomp.CompareMaskedEqual, a.Mask, a.Value)
}

// known returns an error with all names that libseccomp does not know.
func known(t policy.Table) error {
	var unknown []string
	for _, r := range t.Rules {
		for _, name := range r.Names {
			if _, err := seccomp.GetSyscallFromName(name); err != nil {
				unknown = append(unknown, name)
			}
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("system calls unknown to libseccomp: %s", strings.Join(unknown, " "))
	}
	return nil
}
