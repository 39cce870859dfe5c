package take

import (
	"errors"
	"testing"
)

func TestChmod(t *testing.T) {
	tests := []struct {
		mode      string
		old, want uint32 // of a file
		dir       uint32 // of a directory
	}{
		{"644", 0o4755, 0o644, 0o644},
		{"07777", 0, 0o7777, 0o7777},
		{"0", 0o777, 0, 0},
		{"u=rwX,go=rX", 0o600, 0o644, 0o755},
		{"u=rwX,go=rX", 0o710, 0o755, 0o755},
		{"a+x", 0o644, 0o755, 0o755},
		{"+x", 0o600, 0o711, 0o711},
		{"go-r", 0o644, 0o600, 0o600},
		{"go=", 0o777, 0o700, 0o700},
		{"=r", 0o6777, 0o444, 0o444},
		{"=r", 0o1777, 0o1444, 0o1444},
		{"u+s,g+s", 0o755, 0o6755, 0o6755},
		{"o+s", 0o755, 0o755, 0o755},
		{"+s", 0o755, 0o6755, 0o6755},
		{"u-s", 0o6755, 0o2755, 0o2755},
		{"+t", 0o777, 0o1777, 0o1777},
		{"a-t", 0o1777, 0o777, 0o777},
		{"o+t", 0o777, 0o777, 0o777},
		{"g=u", 0o741, 0o771, 0o771},
		{"go=u-w", 0o751, 0o755, 0o755},
		{"u=g", 0o4745, 0o4445, 0o4445}, // set-id bits stay
		{"o+g-x", 0o670, 0o676, 0o676},
		{"a-X", 0o755, 0o644, 0o644},
		{"a+rX-w", 0o640, 0o444, 0o555},
		{"u-x,a+X", 0o744, 0o755, 0o755}, // X looks at the mode before
		{"=rw,+X", 0o600, 0o666, 0o777},
	}
	for _, tt := range tests {
		m, err := ParseMode(tt.mode)
		if err != nil {
			t.Errorf("%s: %v", tt.mode, err)
			continue
		}
		if got := m.apply(tt.old, false); got != tt.want {
			t.Errorf("%s of %04o: %04o, want %04o", tt.mode, tt.old, got, tt.want)
		}
		if got := m.apply(tt.old, true); got != tt.dir {
			t.Errorf("%s of directory %04o: %04o, want %04o", tt.mode, tt.old, got, tt.dir)
		}
	}
	for _, bad := range []string{"8", "10000", "9z9", "rwx", "u", "u~x", "u+x,", ",u+x", "u+x g+x", "u+q", "-1x", "0644 "} {
		if _, err := ParseMode(bad); !errors.Is(err, errMode) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if m, err := ParseMode(""); m != nil || err != nil {
		t.Errorf("no mode: %v, %v", m, err)
	}
}

// FuzzChmod: whatever is accepted gives modes of twelve bits, and doing it twice
// is doing it once where no class takes bits of another and X has seen all.
func FuzzChmod(f *testing.F) {
	for _, s := range []string{"u=rwX,go=rX", "+t", "0755", "a-X+s,o=u-w", "=", "ug+t,=g"} {
		f.Add(s, uint32(0o4751), true)
	}
	f.Fuzz(func(t *testing.T, s string, old uint32, dir bool) {
		m, err := ParseMode(s)
		if err != nil || m == nil {
			return
		}
		old &= 0o7777
		once := m.apply(old, dir)
		if once&^0o7777 != 0 {
			t.Fatalf("%q of %04o: %o", s, old, once)
		}
		for _, c := range m.changes {
			if c.op != '+' && c.op != '-' {
				return
			}
		}
		if twice := m.apply(once, dir); twice != once {
			t.Errorf("%q of %04o: %04o, and again %04o", s, old, once, twice)
		}
	})
}
