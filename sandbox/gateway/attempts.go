package gateway

import (
	"sync"
	"time"
)

// synFor is how long a connection request that is sent again counts as the same
// attempt: a sandbox that has not heard the answer asks again after 1 and 3 s.
const synFor = 4 * time.Second

// mostSyns bounds the attempts that are remembered.
const mostSyns = 16384

// attempts remembers connection requests that were refused, by their first
// sequence number: so an attempt is judged once and makes one record, however
// slow the answer is.
type attempts struct {
	mu   sync.Mutex
	seen map[pair]attempt
}

type attempt struct {
	sequence uint32
	refused  bool
	until    time.Time
}

// repeats tells whether this attempt was refused a moment ago, and remembers it.
// When too many are remembered it is not, and may be judged again.
func (a *attempts) repeats(p pair, sequence uint32, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, found := a.seen[p]
	if found && old.refused && old.sequence == sequence && now.Before(old.until) {
		return true
	}
	if found || len(a.seen) < mostSyns {
		a.seen[p] = attempt{sequence: sequence, until: now.Add(synFor)}
	}
	return false
}

// refuse says that the attempt was answered, with a reset.
func (a *attempts) refuse(p pair, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x, found := a.seen[p]; found {
		x.refused, x.until = true, now.Add(synFor)
		a.seen[p] = x
	}
}

// expire forgets what was long ago. An attempt whose answer takes longer than
// synFor is forgotten, too: its repetitions are the stack's to drop meanwhile.
func (a *attempts) expire(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, x := range a.seen {
		if now.After(x.until) {
			delete(a.seen, p)
		}
	}
}
