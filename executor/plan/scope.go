package plan

import (
	"cmp"
	"slices"
)

// scope is an environment: variables in the order of their last assignment, as
// BuildKit passes them to a process.
type scope struct {
	vars map[string]variable
	next int
	list []string // what Environ returned last; nil after a change
}

type variable struct {
	value string
	order int
}

func newScope() *scope { return &scope{vars: map[string]variable{}} }

// Get returns a variable's value.
func (s *scope) Get(name string) (string, bool) {
	v, ok := s.vars[name]
	return v.value, ok
}

// Set gives a variable a value and makes it the last of the list.
func (s *scope) Set(name, value string) {
	s.vars[name] = variable{value: value, order: s.next}
	s.next++
	s.list = nil
}

// Unset removes a variable.
func (s *scope) Unset(name string) {
	delete(s.vars, name)
	s.list = nil
}

// Keys returns the names in order.
func (s *scope) Keys() []string {
	keys := make([]string, 0, len(s.vars))
	for k := range s.vars {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(s.vars[a].order, s.vars[b].order) })
	return keys
}

// Environ returns NAME=value in order. The slice is shared: it must not be changed.
func (s *scope) Environ() []string {
	if s.list == nil {
		s.list = make([]string, 0, len(s.vars))
		for _, k := range s.Keys() {
			s.list = append(s.list, k+"="+s.vars[k].value)
		}
	}
	return s.list
}

// size is roughly what a copy costs, in bytes.
func (s *scope) size() int { return 64 * len(s.vars) }

func (s *scope) clone() *scope {
	c := &scope{vars: make(map[string]variable, len(s.vars)), next: s.next}
	for k, v := range s.vars {
		c.vars[k] = v
	}
	return c
}

// similar is the variable that a misspelt name may have meant, or empty.
func (s *scope) similar(name string) string {
	if len(s.vars) > maxOptions {
		return ""
	}
	return similar(name, s.Keys())
}
