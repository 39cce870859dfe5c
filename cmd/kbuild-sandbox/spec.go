package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

const specLong = `Print, as JSON, what a build of this context would run in: the OCI spec
(config.json) of one of its sandboxes, the policy inside it, and gVisor's flags.
Nothing is started and nothing is written. Of the Dockerfile and of build's flags not a word is in it.`

func (a *app) specCommand() *cobra.Command {
	var h host
	var role string
	c := &cobra.Command{
		Use:   "spec [flags] [CONTEXT]",
		Short: "Print the sandbox's spec and policy; start nothing",
		Long:  specLong,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &flags.Error{Msg: "one context at most"}
			}
			return nil
		},
	}
	h.register(c.Flags())
	c.Flags().StringVar(&role, "role", string(request.RoleBuild), "which `sandbox`: fetch, build or push")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.spec(c.Context(), h, request.Role(role), append(args, ".")[0])
		if err != nil {
			return err
		}
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	return c
}

// specText is what spec prints.
type specText struct {
	Config *specs.Spec `json:"config"`
	Policy policyText  `json:"policy"`
	Runsc  runscText   `json:"runsc"`
}

// policyText is the policy: of the executor as a whole, which gVisor holds, and
// of its RUN steps, which the executor puts on top.
type policyText struct {
	Executor roleText `json:"executor"`
	Run      roleText `json:"run"`
}

type roleText struct {
	Capabilities []string    `json:"capabilities"`
	Seccomp      seccompText `json:"seccomp"`
}

// seccompText is a policy.Table with words for its numbers.
type seccompText struct {
	Default string     `json:"default"`
	Rules   []ruleText `json:"rules"`
}

type ruleText struct {
	For    string    `json:"for"`
	Action string    `json:"action"`
	Names  []string  `json:"names"`
	Args   []argText `json:"args,omitempty"`
}

type argText struct {
	Index uint   `json:"index"`
	Mask  string `json:"mask"`
	Value string `json:"value"`
	Not   bool   `json:"not,omitempty"`
}

type runscText struct {
	Path    string     `json:"path"`
	Version string     `json:"version"`
	Flags   []flagText `json:"flags"`
}

type flagText struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

func seccompOf(t policy.Table) seccompText {
	text := seccompText{Default: outcome(cmp.Or(t.Default, policy.EPERM))}
	for _, r := range t.Rules {
		rule := ruleText{For: r.For, Action: outcomeOf(r), Names: r.Names}
		for _, a := range r.Args {
			rule.Args = append(rule.Args, argText{a.Index, fmt.Sprintf("%#x", a.Mask), fmt.Sprintf("%#x", a.Value), a.Not})
		}
		text.Rules = append(text.Rules, rule)
	}
	return text
}

func outcomeOf(r policy.Rule) string {
	if r.Nothing {
		return "succeed and do nothing"
	}
	return outcome(r.Errno)
}

func outcome(errno uint) string {
	switch errno {
	case 0:
		return "allow"
	case policy.EPERM:
		return "EPERM"
	case policy.ENOSYS:
		return "ENOSYS"
	}
	return fmt.Sprintf("errno %d", errno)
}

func (a *app) spec(ctx context.Context, h host, role request.Role, contextDir string) (specText, error) {
	switch role {
	case request.RoleFetch, request.RoleBuild, request.RolePush:
	default:
		return specText{}, &flags.Error{Msg: "--role " + string(role) + ": there are fetch, build and push"}
	}
	cfg, err := h.config(ctx)
	if err != nil {
		return specText{}, err
	}
	cfg.Context, cfg.DockerfileData = contextDir, []byte{}
	cfg.Network.Run = policy.RunEgress()
	config, args, err := sandbox.Spec(cfg, role)
	if err != nil {
		return specText{}, err
	}
	return specText{
		Config: config,
		Policy: policyText{
			Executor: roleText{policy.ExecutorCapabilities(), seccompOf(policy.ExecutorTable())},
			Run:      roleText{policy.RunCapabilities(), seccompOf(policy.RunTable())},
		},
		Runsc: runscText{Path: cfg.Runsc.Path, Version: cfg.Runsc.Version.Text, Flags: flagTexts(args)},
	}, nil
}

func flagTexts(args runsc.Flags) []flagText {
	texts := make([]flagText, 0, len(args))
	for _, f := range args {
		texts = append(texts, flagText{f.Name, f.Value, f.Why})
	}
	return texts
}
