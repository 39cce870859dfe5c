package step

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	seccomp "github.com/kbuild-sandbox/kbuild-sandbox/policy/filter"
)

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// Each right that a command could have kept is found, and named.
func TestVerifyRights(t *testing.T) {
	keep, err := policy.CapabilityMask(policy.RunCapabilities())
	must(t, err)
	root := identity{}
	load := func() error { return seccomp.Load(policy.RunTable()) }
	cut := func() error { return cutBoundingSet(keep) }
	set := func() error { return setCapabilities(keep) }
	raised := func() error { // inheritable, as CVE-2022-24769
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		d := [2]unix.CapUserData{{Permitted: uint32(keep), Effective: uint32(keep), Inheritable: uint32(keep)}}
		return unix.Capset(&h, &d[0])
	}
	for _, c := range []struct {
		name  string
		do    []func() error
		check func() error
		wall  string
	}{
		{"all of it", []func() error{cut, load, set}, func() error { return verifyRights(root, keep, keep) }, ""},
		{"no filter", []func() error{cut, set}, func() error { return verifyRights(root, keep, keep) }, "seccomp: the filter of a RUN step does not stop unshare"},
		{"bounding set", []func() error{load, set}, func() error { return verifyRights(root, keep, keep) }, "capabilities: a RUN step's bounding set has capability"},
		{"permitted", []func() error{cut, load}, func() error { return verifyRights(root, keep, keep) }, "capabilities: a RUN step has"},
		{"inheritable", []func() error{cut, load, raised}, func() error { return verifyRights(root, keep, keep) }, "capabilities: a RUN step has"},
		{"those of root", []func() error{cut, load, set}, func() error { return verifyRights(root, keep, 0) }, "capabilities: a RUN step has"},
		{"user", []func() error{cut, load, set}, func() error { return verifyRights(identity{UID: 1000}, keep, keep) }, "user: a RUN step is 0:0 instead of 1000:0"},
	} {
		err := onThread(func() error {
			for _, do := range c.do {
				if err := do(); err != nil {
					return err
				}
			}
			return c.check()
		})
		var wall *WallError
		switch {
		case c.wall == "" && err != nil, c.wall != "" && (!errors.As(err, &wall) || !strings.Contains(err.Error(), c.wall)):
			t.Errorf("%s: %v, want %q", c.name, err, c.wall)
		}
	}
}

// What the child says of a wall is the error of the step.
func TestWallOfChild(t *testing.T) {
	var wall *WallError
	err := (&run{}).failure([]byte(`{"Wall":{"Wall":"seccomp","Found":"nothing"}}`), nil)
	if !errors.As(err, &wall) || wall.Wall != "seccomp" || wall.Found != "nothing" {
		t.Errorf("%v", err)
	}
}
