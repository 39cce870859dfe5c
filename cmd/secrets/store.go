package secrets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Secret is one --secret. One of File, an absolute path, and Env, the name of
// an environment variable, is set.
type Secret struct {
	ID, File, Env string
}

// Agent is one --ssh. Paths, absolute, are one socket of an agent or files with
// private keys.
type Agent struct {
	ID    string
	Paths []string
}

// Lent is what a command line lends to a build. Of several secrets with one id
// the last counts, as in docker.
type Lent struct {
	Secrets []Secret
	Agents  []Agent
}

// Store gives out what is lent. It is safe for concurrent use.
type Store struct {
	values map[string][]byte
	agents map[string]exchange
	sink   request.Sink

	mu     sync.Mutex
	warned map[string]bool // agents whose trouble was told
}

// Open reads all secrets and keys and looks whether the agents are there. env
// looks up an environment variable; sink is told about agents.
func Open(lent Lent, env func(name string) (string, bool), sink request.Sink) (*Store, error) {
	s := &Store{values: map[string][]byte{}, agents: map[string]exchange{}, sink: sink, warned: map[string]bool{}}
	for _, l := range lent.Secrets {
		value, err := l.read(env)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", l.ID, err)
		}
		s.values[l.ID] = value
	}
	for _, l := range lent.Agents {
		agent, err := l.open()
		if err != nil {
			return nil, fmt.Errorf("SSH agent %s: %w", l.ID, err)
		}
		s.agents[l.ID] = agent
	}
	return s, nil
}

func (l Secret) read(env func(string) (string, bool)) ([]byte, error) {
	if l.Env == "" {
		return readFile(l.File, request.MaxSecret)
	}
	value, ok := env(l.Env)
	switch {
	case !ok:
		return nil, fmt.Errorf("the environment variable %s is not set", l.Env)
	case len(value) > request.MaxSecret:
		return nil, fmt.Errorf("the environment variable %s is larger than %d bytes", l.Env, request.MaxSecret)
	}
	return []byte(value), nil
}

// Mask has the values of all secrets masked, and tells of those that cannot be.
func (s *Store) Mask(values *mask.Values) {
	for _, id := range slices.Sorted(maps.Keys(s.values)) {
		if err := values.Add(s.values[id]); err != nil {
			s.emit(request.EventWarning, fmt.Sprintf("secret %s: %s", id, err))
		}
	}
}

// Secret returns the value of a secret. The caller may change it.
func (s *Store) Secret(_ context.Context, id string) ([]byte, error) {
	value, ok := s.values[id]
	if !ok {
		return nil, errors.New("not found")
	}
	return append([]byte(nil), value...), nil
}

// errAgent is all that the other side learns about an agent in trouble.
var errAgent = errors.New("the agent did not answer")

// Agent sends a message to an agent and returns the reply, both without their
// length. What an agent must not be asked gets an SSH_AGENT_FAILURE.
func (s *Store) Agent(ctx context.Context, id string, message []byte) ([]byte, error) {
	ask, ok := s.agents[id]
	if !ok {
		return nil, errors.New("not found")
	}
	key, ok := permitted(message)
	if !ok {
		return failure(), nil
	}
	if key != "" {
		s.emit(request.EventDebug, fmt.Sprintf("SSH agent %s: a signature of %s was asked for", id, key))
	}
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	reply, err := ask(ctx, message)
	if err != nil {
		s.warn(ctx, id, err)
		return nil, errAgent
	}
	if !fits(message, reply) {
		return failure(), nil
	}
	return reply, nil
}

// warn tells once for each agent, and not where the build is being ended.
func (s *Store) warn(ctx context.Context, id string, err error) {
	s.mu.Lock()
	told := s.warned[id]
	s.warned[id] = true
	s.mu.Unlock()
	if !told && !errors.Is(ctx.Err(), context.Canceled) {
		s.emit(request.EventWarning, fmt.Sprintf("SSH agent %s: %s", id, err))
	}
}

func (s *Store) emit(kind request.EventKind, text string) {
	s.sink.Emit(request.Event{Time: time.Now(), Kind: kind, Text: text})
}

// Answer answers an ask for a secret or of an agent.
func (s *Store) Answer(ctx context.Context, ask request.Ask) request.Answer {
	a, err := request.Answer{}, error(nil)
	switch ask.Scope {
	case request.Secret:
		a.Data, err = s.Secret(ctx, ask.Name)
	case request.Agent:
		a.Data, err = s.Agent(ctx, ask.Name, ask.Data)
	default:
		err = fmt.Errorf("scope %s: not a secret's", ask.Scope)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}
