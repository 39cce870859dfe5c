package trace

import (
	"slices"
	"strconv"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// maxLanes is how many threads a role may have. What would need more is left out.
const maxLanes = 64

// lanes are the threads of a role: that of its phases first, if it has any, then as
// many as it does things at once. Nothing overlaps in one of them.
type lanes struct {
	phases *lane
	steps  []*lane
}

// lane is one thread.
type lane struct {
	tid   int
	busy  bool      // a step is at work in it
	until time.Time // the end of the last span in it
}

// lane finds the first thread for the steps of a role that has nothing since start;
// nil: there is none.
func (t *Trace) lane(role request.Role, start time.Time) *lane {
	of := t.lanes[role]
	for _, l := range of.steps {
		if !l.busy && !l.until.After(start) {
			return l
		}
	}
	n := len(of.steps) + 1
	if n == maxLanes {
		return nil
	}
	name := "steps"
	if role != "" {
		name = string(role) + " steps"
	}
	if n > 1 {
		name += " " + strconv.Itoa(n)
	}
	l := t.thread(role, n, name)
	of.steps = append(of.steps, l)
	t.lanes[role] = of
	return l
}

// phases is the thread for the phases of a role.
func (t *Trace) phases(role request.Role) *lane {
	of := t.lanes[role]
	if of.phases == nil {
		name := string(role)
		if role == "" {
			name = "launcher"
		}
		of.phases = t.thread(role, 0, name)
		t.lanes[role] = of
	}
	return of.phases
}

// thread names the n-th thread of a role, and gives it its place: roles in the order
// of a build.
func (t *Trace) thread(role request.Role, n int, name string) *lane {
	order := []request.Role{"", request.RoleFetch, request.RoleBuild, request.RolePush}
	tid := (slices.Index(order, role)+1)*maxLanes + n
	t.write(label{Name: "thread_name", Phase: "M", PID: pid, TID: tid, Args: labelArgs{Name: name}})
	t.write(label{Name: "thread_sort_index", Phase: "M", PID: pid, TID: tid, Args: labelArgs{Sort: tid}})
	return &lane{tid: tid}
}
