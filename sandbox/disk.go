package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

const (
	// lookEvery is how often the disk is looked at while there is much room, and
	// lookSoon while there is little: by then not even writers of fastest bytes a
	// second have passed the margin.
	lookEvery = 250 * time.Millisecond
	lookSoon  = 5 * time.Millisecond
	fastest   = 4 << 30
	// overTime is how long the workspaces may together hold more than they may:
	// gVisor takes a moment to give back what was removed, and a step that has
	// found its workspace full says so itself.
	overTime = 2 * time.Second
	// takeStep is after how many bytes the launcher looks at the disk itself.
	takeStep = 16 << 20
)

// disk is the room that one run has: all of its sandboxes and the launcher take
// from it. A nil one has no end.
type disk struct {
	dir    string
	limit  int64 // of all together, in bytes (--work-size); 0: none
	output bool  // it is a user's place, not the work directory

	mu    sync.Mutex
	kept  int64                  // what the launcher has written
	seen  int64                  // kept when the free space was last looked at
	works map[request.Role][]int // the files behind the workspaces, O_PATH
	over  time.Time              // since when there is more than limit
}

// take counts bytes that the launcher is about to write. Of the limit it can have
// what it has not had: what there is in workspaces changes, and look sees to it.
func (d *disk) take(n int64) error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.allows(n, 0); err != nil {
		return err
	}
	d.kept += n
	if d.kept-d.seen < takeStep {
		return nil
	}
	d.seen = d.kept
	_, err := d.spare(n)
	return err
}

// give takes back bytes that were removed.
func (d *disk) give(n int64) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept -= n
	d.seen = min(d.seen, d.kept)
}

// fits tells whether n more bytes have room. It does not count them.
func (d *disk) fits(n int64) error {
	if d == nil {
		return nil
	}
	n = min(n, 1<<62) // whatever somebody has announced, the sums below hold
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.allows(n, 0); err != nil {
		return err
	}
	_, err := d.spare(n)
	return err
}

// allows keeps the limit: what the launcher keeps, work of the workspaces beside it,
// and more. It needs mu, as those below.
func (d *disk) allows(more, work int64) error {
	if d.limit > 0 && more > d.limit-d.kept-work {
		return &SpaceError{Dir: d.dir, Limit: d.limit, Kept: d.kept + more, Work: d.held()}
	}
	return nil
}

// spare returns what is free beyond the margin after n more bytes.
func (d *disk) spare(n int64) (int64, error) {
	free, err := freeSpace(d.dir)
	if err == nil && n > free-margin {
		err = &SpaceError{Dir: d.dir, Free: free, Need: margin + n, Output: d.output}
	}
	return free - margin - n, err
}

// held is what the workspaces take of the disk, in bytes.
func (d *disk) held() (n int64) {
	for _, fds := range d.works {
		for _, fd := range fds {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				n += st.Blocks * 512 // stat(2)
			}
		}
	}
	return n
}

// open begins to count a role's workspace: the files in dir, which lose their
// names afterwards. They are opened without access to what is in them.
func (d *disk) open(role request.Role, dir string) error {
	if d == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		fd, err := unix.Open(filepath.Join(dir, e.Name()), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
		if d.works == nil {
			d.works = map[request.Role][]int{}
		}
		d.works[role] = append(d.works[role], fd)
	}
	return nil
}

// close ends that. Before, the kernel does not free the workspace.
func (d *disk) close(role request.Role) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, fd := range d.works[role] {
		unix.Close(fd)
	}
	delete(d.works, role)
}

// look looks at the disk once, and returns when to look again.
func (d *disk) look(now time.Time) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	spare, err := d.spare(0)
	if err != nil {
		return 0, err
	}
	if err := d.allows(0, d.held()); err == nil {
		d.over = time.Time{}
	} else if d.over.IsZero() {
		d.over = now
	} else if now.Sub(d.over) >= overTime {
		return 0, err
	}
	wait := time.Duration(min(spare, fastest)) * time.Second / fastest
	return min(max(wait, lookSoon), lookEvery), nil
}

// guard looks at the disk until stop. What it finds ends the context.
func (d *disk) guard(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			wait, err := d.look(time.Now())
			if err != nil {
				cancel(err)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// counted is a reader whose bytes the launcher keeps.
type counted struct {
	r    io.Reader
	disk *disk
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if full := c.disk.take(int64(n)); full != nil {
		return 0, full
	}
	return n, err
}

// blame puts a full disk in the place of what it has led to: gVisor dies where
// a workspace's pages find no room. The workspaces are still there to be seen.
func (d *disk) blame(ctx context.Context, err error) error {
	if d == nil || ctx.Err() != nil || !errors.Is(err, errNoResult) && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, full := d.spare(0); full != nil {
		return full
	}
	return err
}

// killWhenFull ends the sandbox of a state directory at once when the disk is
// why ctx ends: whatever runs in it would go on writing for as long as it is
// asked to stop. It returns what to call in the end.
func killWhenFull(ctx context.Context, state string) (unhook func()) {
	stop := context.AfterFunc(ctx, func() {
		if space := new(SpaceError); !errors.As(context.Cause(ctx), &space) {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goneIn)
		defer cancel()
		// Whatever does not die here is told when the sandbox is ended.
		_ = runsc.Kill(ctx, state)
	})
	return func() { stop() }
}
