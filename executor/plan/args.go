package plan

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// proxyNames are arguments that reach every RUN undeclared, in either case.
var proxyNames = [...]string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

// isProxy says whether a variable is one of those.
func isProxy(variable string) bool {
	return slices.ContainsFunc(proxyNames[:], func(p string) bool { return strings.EqualFold(p, variable) })
}

// Proxies are the variables that the proxies among build arguments become.
func Proxies(args []request.KeyValue) []string {
	given := map[string]string{}
	for _, a := range args {
		given[a.Key] = a.Value
	}
	return proxies(given)
}

// proxies are the proxy variables among build arguments, in both cases.
func proxies(args map[string]string) []string {
	var list []string
	for _, name := range proxyNames {
		value := ""
		for _, k := range sortedKeys(args) {
			if strings.EqualFold(k, name) {
				value = args[k]
			}
		}
		if value != "" {
			list = append(list, name+"="+value, strings.ToLower(name)+"="+value)
		}
	}
	return list
}

// globals evaluates the ARG instructions before the first FROM on top of the
// predefined arguments.
func (m *maker) globals(ctx context.Context, stages []instructions.Stage, args []instructions.ArgCommand) error {
	stage := m.opt.Target
	if stage == "" {
		stage = stages[len(stages)-1].Name
	}
	if stage == "" {
		stage = "default"
	}
	predefined := newScope()
	for _, kv := range platformArgs(m.build, m.target, stage) {
		v := kv[1]
		if given, ok := m.args[kv[0]]; ok {
			v = given
		}
		predefined.Set(kv[0], v)
	}
	// The base names have to make sense with the defaults alone, too.
	if defaults, _, err := m.globalScope(predefined, args, nil); err == nil {
		m.checks.defaultBases(m, stages, defaults)
	}
	var err error
	if m.global, m.declared, err = m.globalScope(predefined, args, m.args); err != nil {
		return err
	}
	return m.epoch(ctx, stages)
}

// globalScope evaluates ARG instructions of the global scope with build
// arguments, and returns what they declare beside.
func (m *maker) globalScope(predefined *scope, cmds []instructions.ArgCommand, args map[string]string) (*scope, map[string]definition, error) {
	env, declared := predefined.clone(), map[string]definition{}
	for _, cmd := range cmds {
		for _, a := range cmd.Args {
			def := define(a, cmd.Location())
			value := a.Value
			if given, ok := args[a.Key]; ok {
				value = &given
			} else if value != nil {
				res, err := m.expand(m.lex, *value, env)
				if err != nil {
					return nil, nil, dockerfile.At(err, request.ClassParse, cmd.Location())
				}
				value = &res.Result
				def.read(res.Matched, a.Key, declared[a.Key])
			}
			if value != nil {
				if err := checkValue("ARG", a.Key, *value); err != nil {
					return nil, nil, dockerfile.At(err, request.ClassParse, cmd.Location())
				}
				env.Set(a.Key, *value)
				def.value = *value
			}
			declared[a.Key] = def
		}
	}
	return env, declared, nil
}

// arg is ARG in a stage: the build argument, else the default, else the value
// of the global scope.
func (m *maker) arg(d *draft, i *instructions.ArgCommand, lint *linter.Linter) error {
	shown := make([]string, 0, len(i.Args))
	for _, a := range i.Args {
		m.checks.secret("ARG", a.Key, i.Location(), lint)
		value, err := m.argValue(d, i, a, lint)
		if err != nil {
			return err
		}
		entry := argument{name: a.Key}
		text := a.Key
		if value != nil {
			if err := checkValue("ARG", a.Key, *value); err != nil {
				return err
			}
			entry.value = *value
			text += "=" + *value
			if !isScanArg(a.Key) {
				d.env.Set(a.Key, *value)
			}
		}
		d.declared = append(d.declared, entry)
		m.define(d, a, entry.value, i.Location())
		shown = append(shown, text)
	}
	return m.record(d, "ARG "+strings.Join(shown, " "), false)
}

// argValue is the value of one ARG, or nil.
func (m *maker) argValue(d *draft, i *instructions.ArgCommand, a instructions.KeyValuePairOptional, lint *linter.Linter) (*string, error) {
	if given, ok := m.args[a.Key]; ok {
		return &given, nil
	}
	if a.Value == nil {
		if global, ok := m.global.Get(a.Key); ok {
			return &global, nil
		}
		return nil, nil
	}
	res, err := m.expand(m.lex, *a.Value, d.env)
	m.checks.undefined(d, res.Unmatched, i.Location(), lint)
	return &res.Result, err
}

// checkValue refuses a variable that no program could be given.
func checkValue(instruction, name, value string) error {
	if len(name)+1+len(value) > maxValue {
		return fmt.Errorf("%s %s: the value has %d bytes, a variable can have at most %d", instruction, abbreviate(name), len(value), maxValue)
	}
	return nil
}

// isScanArg says whether an argument steers BuildKit's SBOM scanner: it is no
// variable for RUN.
func isScanArg(name string) bool {
	return name == "BUILDKIT_SBOM_SCAN_CONTEXT" || name == "BUILDKIT_SBOM_SCAN_STAGE"
}

func isArg(c command) bool {
	_, ok := c.Command.(*instructions.ArgCommand)
	return ok
}

// unconsumed are the build arguments that nothing in the Dockerfile declares
// and that mean nothing by themselves.
func (m *maker) unconsumed(stages []instructions.Stage) []string {
	known := map[string]bool{}
	for name := range m.declared {
		known[name] = true
	}
	for _, s := range stages {
		for _, c := range s.Commands {
			if a, ok := c.(*instructions.ArgCommand); ok {
				for _, kv := range a.Args {
					known[kv.Key] = true
				}
			}
		}
	}
	for _, d := range m.stages {
		for _, a := range d.declared { // those of triggers
			known[a.name] = true
		}
	}
	for _, kv := range platformArgs(m.build, m.target, "") {
		known[kv[0]] = true
	}
	var names []string
	for _, kv := range m.opt.Args {
		k := kv.Key
		if !known[k] && !isProxy(k) && k != sourceDateEpoch && !strings.HasPrefix(k, "BUILDKIT_") {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
