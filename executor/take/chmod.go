package take

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Permission bits of chmod(2).
const (
	setUID  = 0o4000
	setGID  = 0o2000
	sticky  = 0o1000
	allExec = 0o111
	allBits = setUID | setGID | 0o777 // what "a", or nobody named, stands for; sticky stays out
)

// Mode is a parsed --chmod: an octal mode or a list of changes.
type Mode struct {
	octal   bool
	mode    uint32
	changes []bitChange
}

// bitChange is a part of a symbolic mode that is carried out at once.
type bitChange struct {
	// op is + or - for bits, X for bits if the file is a directory or somebody
	// may execute it, or u, g or o to copy the bits of that class.
	op     byte
	bits   uint32
	copy   byte   // + - =: what is done with copied bits
	copies uint32 // the classes that take them, as bits of 0111
}

var errMode = errors.New("invalid chmod parameter")

// ParseMode reads the value of --chmod. An empty one gives nil: no change.
func ParseMode(s string) (*Mode, error) {
	if s == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(s, 8, 32); err == nil && n <= 0o7777 {
		return &Mode{octal: true, mode: uint32(n)}, nil
	}
	if s[0] >= '0' && s[0] <= '9' {
		return nil, fmt.Errorf("%w: '%s'. it should be octal string and between 0 and 07777", errMode, s)
	}
	m := &Mode{}
	rest := s
	for {
		var ok bool
		if rest, ok = m.clause(rest); !ok {
			return nil, fmt.Errorf("%w: '%s'", errMode, s)
		}
		if rest == "" {
			return m, nil
		}
		rest = rest[1:] // the comma
	}
}

// clause reads one clause, who and actions, up to a comma or the end.
func (m *Mode) clause(s string) (rest string, ok bool) {
	a := action{}
	for ; s != ""; s = s[1:] {
		bits := classBits(s[0])
		if bits == 0 {
			break
		}
		a.who |= bits
	}
	for {
		if s == "" || s[0] != '+' && s[0] != '-' && s[0] != '=' {
			return "", false
		}
		a.op = s[0]
		s = a.perms(s[1:])
		m.changes = append(m.changes, a.changes...)
		a.changes = nil
		if s == "" || s[0] == ',' {
			return s, true
		}
	}
}

// classBits are the bits that a who letter stands for; 0 if it is none.
func classBits(b byte) uint32 {
	switch b {
	case 'u':
		return setUID | 0o700
	case 'g':
		return setGID | 0o070
	case 'o':
		return 0o007
	case 'a':
		return allBits
	}
	return 0
}

// action is an operator with what follows it, while it is read.
type action struct {
	op      byte
	who     uint32 // bits that may change; 0: nobody named
	changes []bitChange
}

// perms reads the permissions after an operator. The rules are those of BSD's
// chmod, which BuildKit follows: set-id and sticky bits mean nothing for others
// alone, and "=" with the bits of a class leaves set-id bits alone.
func (a *action) perms(s string) (rest string) {
	a.who &^= sticky
	perm, exec, assigned := uint32(0), uint32(0), false
	special := a.who == 0 || a.who&^0o007 != 0
	for ; s != ""; s = s[1:] {
		b := s[0]
		switch {
		case b == 'r':
			perm |= 0o444
		case b == 'w':
			perm |= 0o222
		case b == 'x' || b == 'X' && a.op == '-':
			perm |= allExec
		case b == 'X':
			exec = allExec
		case b == 's' && special:
			perm |= setUID | setGID
		case b == 't' && special:
			a.who |= sticky
			perm |= sticky
		case b == 's' || b == 't':
		case b == 'u' || b == 'g' || b == 'o':
			// What was read so far comes first: the copy may depend on it.
			a.flush(perm, exec, perm != 0)
			perm, exec, assigned = 0, 0, true
			a.changes = append(a.changes, bitChange{op: b, copy: a.op, copies: a.classes()})
		default:
			a.flush(perm, exec, perm != 0 || !assigned)
			return s
		}
	}
	a.flush(perm, exec, perm != 0 || !assigned)
	return s
}

// classes are the classes in who, as bits of 0111. As in BSD's chmod a "t"
// counts as somebody named.
func (a *action) classes() uint32 {
	if a.who == 0 {
		return allExec
	}
	return a.who >> 2 & allExec
}

// flush adds the changes for perm and for the X bits exec.
func (a *action) flush(perm, exec uint32, usePerm bool) {
	mask := a.who
	if mask == 0 {
		mask = allBits | sticky
	}
	if usePerm && a.op == '=' {
		clear := a.who
		if clear == 0 {
			clear = allBits
		}
		a.changes = append(a.changes, bitChange{op: '-', bits: clear})
	}
	if usePerm {
		op := a.op
		if op == '=' {
			op = '+'
		}
		a.changes = append(a.changes, bitChange{op: op, bits: perm & mask})
	}
	if exec != 0 {
		a.changes = append(a.changes, bitChange{op: 'X', bits: exec & mask})
	}
}

// Number is the mode if that is a number.
func (m *Mode) Number() (mode uint32, ok bool) { return m.mode, m.octal }

// apply gives the mode that a file or directory of mode old gets.
func (m *Mode) apply(old uint32, dir bool) uint32 {
	if m.octal {
		return m.mode
	}
	mode := old
	for _, c := range m.changes {
		switch c.op {
		case '+':
			mode |= c.bits
		case '-':
			mode &^= c.bits
		case 'X':
			if dir || old&allExec != 0 {
				mode |= c.bits
			}
		default:
			mode = c.copyClass(mode)
		}
	}
	return mode
}

// copyClass gives the bits of one class to others.
func (c bitChange) copyClass(mode uint32) uint32 {
	shift := map[byte]uint{'u': 6, 'g': 3, 'o': 0}[c.op]
	bits := (mode >> shift & 7) * c.copies
	switch c.copy {
	case '-':
		return mode &^ bits
	case '=':
		return mode&^(7*c.copies) | bits
	}
	return mode | bits
}

// ModeOf is the mode of the copy of a file with attributes st.
func (f *Files) ModeOf(st *unix.Stat_t) uint32 {
	mode := st.Mode & 0o7777
	if f.Mode != nil {
		mode = f.Mode.apply(mode, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	}
	return mode
}
