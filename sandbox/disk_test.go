package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// smallDisk mounts a file system of so many MiB at dir.
func smallDisk(t *testing.T, dir string, size int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", size)); err != nil {
		t.Skip("cannot mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error("something is left open:", err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

// leastFree watches what dir's file system has, in MiB, until it is asked.
func leastFree(t *testing.T, dir string) func() int64 {
	t.Helper()
	var least atomic.Int64
	least.Store(1 << 40)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if free, err := freeSpace(dir); err == nil && free < least.Load() {
				least.Store(free)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return least.Load() >> 20
	}
}

// acting gives push its part of an act, which has no Dockerfile. What goes on for
// ever ends in time.
func acting(act string) func(*Config) {
	return func(c *Config) {
		c.Request.Limits.Timeout = 20 * time.Second
		if line, ok := strings.CutPrefix(act, "@push "); ok {
			line, _, _ = strings.Cut(line, "\n")
			c.Request.Destinations = append([]string{"registry.example/image"}, strings.Fields(line)...)
		}
	}
}

// Whichever of the sandboxes, or the launcher for them, takes the last of the
// disk: the margin stays, and the build ends with an error about the disk.
func TestMarginStays(t *testing.T) {
	for _, tt := range []struct{ name, act string }{
		{"two workspaces", "@push hold 300\nhold 300"},
		{"workspace and store", "@fetch pour 300\nhold 300"},
		{"store", "@fetch pour 1000"},
		{"store of build", "pour 1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, tt.act)
			dir := filepath.Join(j.Base, "w")
			smallDisk(t, dir, 700)
			least := leastFree(t, dir)
			res, _, err := run(t, j, acting(tt.act))
			// Until the sandboxes are dead they write on: on a machine that is busy, to
			// a disk that is memory, a hundred MiB and more.
			free := least()
			t.Log(free, "MiB were left to others")
			if free < margin>>20/8 {
				t.Error("that is too little")
			}
			var space *SpaceError
			if !errors.As(err, &space) || space.Dir != dir || space.Limit != 0 || res.Failure != nil {
				t.Fatalf("result %+v, error %v", res.Failure, err)
			}
			if text := err.Error(); !strings.Contains(text, "MiB are free on this disk of the host") || !strings.HasSuffix(text, "--work-dir names another directory") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// --work-size bounds all sandboxes and the store together.
func TestWorkSizeBoundsAll(t *testing.T) {
	for _, tt := range []struct {
		name, act string
		most      int64 // MiB of the disk
	}{
		{"store", "@fetch pour 1000", 66},
		{"store of build", "pour 1000", 66},
		{"workspace and store", "@fetch pour 30\nhold 40", 72},
		{"two workspaces", "@push hold 40\nhold 40", 84}, // and only for a moment
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, tt.act)
			j.Quota = 64 << 20
			dir := filepath.Join(j.Base, "w")
			smallDisk(t, dir, 1600)
			least := leastFree(t, dir)
			_, _, err := run(t, j, acting(tt.act))
			if took := 1600 - least(); took > tt.most {
				t.Errorf("took %d MiB", took)
			}
			var space *SpaceError
			if !errors.As(err, &space) || space.Dir != dir || space.Limit != 64<<20 {
				t.Fatalf("error %v", err)
			}
			if text := err.Error(); !strings.HasSuffix(text, "64 MiB are allowed: raise --work-size") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The context that comes on standard input counts.
func TestWorkSizeBoundsStdin(t *testing.T) {
	j := newJob(t, "ok")
	j.Quota = 64 << 20
	_, _, err := run(t, j, func(c *Config) {
		c.Context, c.Stdin, c.Request.Source.Tar = "", zeros{}, "-"
	})
	if space := new(SpaceError); !errors.As(err, &space) || space.Limit != j.Quota {
		t.Errorf("error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// gVisor dies where others have taken the disk. The disk is named, and not it.
func TestOthersFillTheDisk(t *testing.T) {
	j := newJob(t, "hold 350")
	dir := filepath.Join(j.Base, "w")
	smallDisk(t, dir, 700)
	c, err := j.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	others := func() {
		f, err := os.Create(filepath.Join(dir, "others"))
		if err != nil {
			t.Error(err)
			return
		}
		defer os.Remove(f.Name())
		defer f.Close()
		full := errors.New("not tried")
		for i := 0; i < 1000 && full != nil; i++ { // the sandbox takes of it, too
			if free, err := freeSpace(dir); err == nil {
				full = unix.Fallocate(int(f.Fd()), 0, 0, free)
			}
		}
		if full != nil {
			t.Error("cannot fill the disk:", full)
		}
		time.Sleep(2 * time.Second)
	}
	done := make(chan struct{})
	acting("")(&c)
	go func() {
		defer close(done)
		for { // until the sandbox is at work
			if free, err := freeSpace(dir); err != nil || free < 690<<20 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		others()
	}()
	_, err = Run(t.Context(), c)
	<-done
	if space := new(SpaceError); !errors.As(err, &space) {
		t.Errorf("error %v", err)
	}
}

// A sandbox that is gone is the disk's fault only where that is full.
func TestBlame(t *testing.T) {
	dir := t.TempDir()
	d := &disk{dir: dir}
	if err := d.blame(t.Context(), errNoResult); err != errNoResult {
		t.Errorf("with room: %v", err)
	}
	smallDisk(t, dir, 255)
	space := new(SpaceError)
	for _, err := range []error{errNoResult, fmt.Errorf("store: %w", unix.ENOSPC)} {
		if got := d.blame(t.Context(), err); !errors.As(got, &space) || space.Dir != dir {
			t.Errorf("%v became %v", err, got)
		}
	}
	for _, err := range []error{nil, errOutput} {
		if got := d.blame(t.Context(), err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// What is dropped, or there already, is not counted.
func TestStoreCounts(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s.disk.limit = 1000
	data := make([]byte, 400)
	for range 5 {
		if _, err := s.put(data); err != nil {
			t.Fatal(err)
		}
		in, err := s.begin(request.Output{Kind: request.OutputStored})
		if err != nil || in.write(data) != nil || in.end(request.OutputEnd{Dropped: true}) != nil {
			t.Fatal(err)
		}
	}
	if s.disk.kept != 400 {
		t.Errorf("%d bytes", s.disk.kept)
	}
	space := new(SpaceError)
	if _, err := s.begin(request.Output{Kind: request.OutputStored, Size: 601}); !errors.As(err, &space) || space.Limit != 1000 {
		t.Errorf("announced: %v", err)
	}
	data[0] = 1
	if _, err := s.put(data); err != nil {
		t.Error(err)
	}
	data[0] = 2
	if _, err := s.put(data); !errors.As(err, &space) {
		t.Errorf("written: %v", err)
	}
	if s.disk.kept != 800 {
		t.Errorf("%d bytes", s.disk.kept)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "s", "new")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// An output beside the store takes from the same disk, another from its own.
func TestOutputsTakeRoom(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s.disk.limit = 1 << 20
	write := func(to string) error {
		o, err := openOutputs(Outputs{TarPath: filepath.Join(to, "t")}, dir, s)
		if err != nil {
			t.Fatal(err)
		}
		defer o.discard()
		tar, err := o.begin(request.Output{Kind: request.OutputTar})
		if err != nil {
			return err
		}
		defer tar.discard()
		for range 100 {
			if err := tar.write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}
	space := new(SpaceError)
	if err := write(dir); !errors.As(err, &space) || space.Limit != 1<<20 {
		t.Errorf("beside: %v", err)
	}
	other := filepath.Join(dir, "other")
	smallDisk(t, other, 400)
	if err := write(other); err != nil {
		t.Errorf("elsewhere: %v", err)
	}
	small := filepath.Join(dir, "small")
	smallDisk(t, small, 300)
	if err := write(small); !errors.As(err, &space) || space.Dir != small || space.Limit != 0 || strings.Contains(err.Error(), "--work") {
		t.Errorf("on a small disk: %v", err)
	}
}

// The less there is, the more often the disk is looked at; what is too much for a
// moment is none of its business.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	smallDisk(t, dir, 256+20)
	d := &disk{dir: dir}
	now := time.Now()
	if wait, err := d.look(now); err != nil || wait != lookSoon {
		t.Errorf("%v, %v", wait, err)
	}
	far := &disk{dir: "/dev"}
	if free, err := freeSpace("/dev"); err == nil && free > 2<<30 {
		if wait, err := far.look(now); err != nil || wait != lookEvery {
			t.Errorf("%v, %v", wait, err)
		}
	}
	d.limit, d.kept = 10, 11
	for _, after := range []time.Duration{0, overTime / 2} {
		if _, err := d.look(now.Add(after)); err != nil {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if _, err := d.look(now.Add(overTime)); err == nil {
		t.Error("too much, and nobody minds")
	}
	d.kept = 10
	if _, err := d.look(now.Add(overTime)); err != nil {
		t.Error(err)
	}
}
