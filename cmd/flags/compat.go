package flags

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// compat are flags of docker's and buildah's that others have come to count on.
type compat struct {
	hostname      string
	network       string
	allow         []string
	noCache       bool
	noCacheFilter []string
	pull          string
	push          bool
	outputs       []string
	skipCheck     bool
	skipImmutable bool
	ignored       []notice
}

// Entitlements as docker names them.
const networkHost, insecure, device = "network.host", "security.insecure", "device"

func (b *Build) registerCompat() {
	fs, c := b.set, &b.compat
	fs.StringVar(&c.hostname, "hostname", "", "the host `name` of RUN (default buildkitsandbox)")
	fs.Var(choiceValue{&c.network, []string{"default", "none", "host"}}, "network", "the network of every RUN that names none; host needs --allow network.host")
	fs.StringSliceVar(&c.allow, "allow", nil, "grant an `entitlement`: network.host; may be repeated")
	group(fs, groupRun, "hostname", "network", "allow")
	fs.VarP(listValue{&c.outputs}, "output", "o", "docker's form of the flags above: type=registry, image, docker or oci, with attributes: `type=oci,dest=dir,tar=false`; may be repeated")
	fs.BoolVar(&c.push, "push", false, "push to the destinations, as is done anyway unless --output says otherwise")
	group(fs, groupResult, "output", "push")
	fs.BoolVar(&c.noCache, "no-cache", false, "use nothing of earlier builds; cache mounts of RUN are kept")
	fs.StringSliceVar(&c.noCacheFilter, "no-cache-filter", nil, "the same for these `stages`")
	fs.Var(pullValue{choiceValue{&c.pull, []string{"true", "false", "always", "missing", "newer"}}}, "pull", "ask registries for base images, as is always done")
	fs.Lookup("pull").NoOptDefVal = "true"
	group(fs, groupSource, "no-cache", "no-cache-filter", "pull")
	fs.BoolVar(&c.skipCheck, "skip-push-permission-check", false, "do not ask before the build whether a push would be allowed")
	fs.BoolVar(&c.skipImmutable, "push-ignore-immutable-tag-errors", false, "a tag that is there already and cannot be changed is no error")
	group(fs, groupRemote, "skip-push-permission-check", "push-ignore-immutable-tag-errors")
	for _, name := range []string{"provenance", "sbom"} {
		if fs.Lookup(name) != nil {
			continue
		}
		fs.VarPF(noneValue{}, name, "", noAttestation).Hidden = true
	}
	registerNotices(fs, &c.ignored)
}

// noneValue stands for attestations: it can only be said that none are wanted.
type noneValue struct{}

func (noneValue) String() string { return "" }

func (noneValue) Set(s string) error {
	if s != "false" {
		return errors.New(noAttestation + ": want false")
	}
	return nil
}

func (noneValue) Type() string { return "false" }

// pullValue has a short name in the help.
type pullValue struct{ choiceValue }

func (pullValue) Type() string { return "policy" }

// docker's long name of a flag of ours.
func longNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "file" {
		name = "dockerfile"
	}
	return pflag.NormalizedName(name)
}

// compatibility takes what is the same for every build.
func (b *Build) compatibility(r *request.Build, _ From) error {
	c := &b.compat
	r.NoCache, r.NoCacheFilter = c.noCache, c.noCacheFilter
	r.SkipPushCheck, r.SkipImmutable = c.skipCheck, c.skipImmutable
	if err := b.entitlements(r); err != nil {
		return err
	}
	r.Run.Network = strings.TrimPrefix(c.network, "default")
	if c.network == "host" && !slices.Contains(r.Allow, networkHost) {
		return usagef("add --allow "+networkHost, "--network=host: %s is not allowed", networkHost)
	}
	if c.hostname == "" {
		return nil
	}
	if !isHostname(c.hostname) {
		return usagef("letters, digits, dots and hyphens, at most 64", "--hostname: %q is not the name of a host", c.hostname)
	}
	r.Run.Hostname = c.hostname
	return nil
}

// entitlements takes --allow.
func (b *Build) entitlements(r *request.Build) error {
	for _, e := range b.compat.allow {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case networkHost:
			if !slices.Contains(r.Allow, e) {
				r.Allow = append(r.Allow, e)
			}
		case insecure:
			return usagef("RUN steps are root in the sandbox already", "--allow: %s is never granted", insecure)
		case device:
			return usagef("", "--allow: %s: devices are not supported", e)
		default:
			return usagef("", "--allow: %q: unknown entitlement: want %s", e, networkHost)
		}
	}
	return nil
}

// isHostname says whether Linux and programs can take a name of a host.
func isHostname(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	return len(s) <= 64 && strings.Trim(s, letters) == "" && strings.Trim(s, "-.") == s
}

// pushing settles --push against what else was said.
func (b *Build) pushing(noPush bool) error {
	if b.compat.push && noPush {
		return usagef("leave one of them out", "--push cannot be used with --no-push")
	}
	return nil
}

// boolean reads the value of an attribute of a flag.
func boolean(flag, key, value string) (bool, error) {
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, usagef("", "--%s: %s=%s: want true or false", flag, key, value)
	}
	return v, nil
}
