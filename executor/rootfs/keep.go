package rootfs

import (
	"context"
	"sync"
)

// Kept is a directory that lasts as long as its space. Whoever does not want to
// share it holds its lock.
type Kept struct {
	name string
	once sync.Once
	dir  string
	undo func() error
	err  error
	use  chan struct{} // full while locked
}

// Keep returns the directory kept under name. The first to ask has it made:
// make returns the directory and what Close has to do with it, or nil.
func (s *Space) Keep(name string, make func() (dir string, undo func() error, err error)) (*Kept, error) {
	k := s.keeper(name)
	k.once.Do(func() { k.dir, k.undo, k.err = make() })
	if k.err != nil {
		return nil, k.err
	}
	return k, nil
}

func (s *Space) keeper(name string) *Kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.kept[name]; ok {
		return k
	}
	if s.kept == nil {
		s.kept = map[string]*Kept{}
	}
	k := &Kept{name: name, use: make(chan struct{}, 1)}
	s.kept[name] = k
	return k
}

// Name is what it is kept under.
func (k *Kept) Name() string { return k.name }

// Dir is the directory.
func (k *Kept) Dir() string { return k.dir }

// Lock waits for the lock.
func (k *Kept) Lock(ctx context.Context) error {
	select {
	case k.use <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TryLock takes the lock if nobody has it.
func (k *Kept) TryLock() bool {
	select {
	case k.use <- struct{}{}:
		return true
	default:
		return false
	}
}

// Unlock gives the lock back.
func (k *Kept) Unlock() { <-k.use }
