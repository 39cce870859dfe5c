package executor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// A step's key in the layer cache names all that decides what it makes, and nothing
// else, in this build or in any other: what it stands on, by the content of the
// base's layers; its operation with what a command sees; what it reads, by content
// or by the key of the stage. Metadata, names of stages and lines of the Dockerfile
// do not count, nor does what BuildKit leaves out: the values of secrets, what a
// cache mount has, proxies and times.
//
// A copy has two keys. The first has no content in it: it says whether reading the
// source is worth it, and, for a copy from a stage, what came of it last time.

// stepKey is a key, 64 hex digits; empty: nothing names the result.
type stepKey string

// keyForm is part of every key. It changes with what a key means.
const keyForm = "kbuild-sandbox step 1"

// keyer makes the keys of one plan.
type keyer struct {
	req *request.Build
	// layers is what else decides the bytes of a layer.
	layers any
}

func newKeyer(req *request.Build, p *plan.Plan) keyer {
	k := keyer{req: req}
	packed := struct {
		Compression request.Compression
		Clamp       any
	}{Compression: req.Compression}
	if req.RewriteTimestamp {
		packed.Clamp = p.Created
	}
	k.layers = packed
	return k
}

// nameOf is the key of what v describes. What is not UTF-8 JSON cannot tell apart.
func nameOf(what string, v any) (stepKey, error) {
	b, err := json.Marshal(struct {
		Form, What string
		Of         any
	}{keyForm, what, v})
	if err != nil {
		return "", fmt.Errorf("name a step: %w", err)
	}
	if bytes.Contains(b, []byte(`\ufffd`)) {
		return "", nil
	}
	sum := sha256.Sum256(b)
	return stepKey(hex.EncodeToString(sum[:])), nil
}

// base is the key of what a stage begins with; below is that of the stage under it.
func (k keyer) base(s *plan.Stage, below stepKey) (stepKey, error) {
	switch {
	case s.Base.Stage != nil:
		return below, nil
	case s.Base.Named != "": // nobody has read all of it
		return "", nil
	case s.Base.Image == nil:
		return nameOf("scratch", k.layers)
	}
	diffs, err := diffIDs(s.Base.Image)
	if err != nil {
		return "", err
	}
	return nameOf("image", struct {
		Layers any
		Diffs  []v1.Hash
	}{k.layers, diffs})
}

// stepFacts are an operation as keys have it.
type stepFacts struct {
	Below stepKey
	Op    plan.Op
	Run   *runs     `json:",omitempty"`
	Reads []stepKey `json:",omitempty"`
	// Content is the digest of what a copy takes, hex.
	Content string `json:",omitempty"`

	alone bool // Below does not count
}

// runs is what of the request a command may see.
type runs struct {
	Hostname, Network string
	Hosts             []request.KeyValue
}

// plain describes a step without the content that it reads; ok is false if nothing
// can name the result.
func (k keyer) plain(below stepKey, op plan.Op) (d stepFacts, sources []*plan.Stage, ok bool) {
	op, sources = detached(op), plan.Sources(op)
	d = stepFacts{Below: below, Op: op}
	switch o := op.(type) {
	case *plan.Run:
		if slices.ContainsFunc(o.Mounts, readsContext) {
			return d, sources, false
		}
		d.Run = &runs{k.req.Run.Hostname, k.req.Run.Network, k.req.Run.Hosts}
		d.Op = k.withoutProxies(o)
	case *plan.Copy:
		if slices.ContainsFunc(o.Remotes, changes) {
			return d, sources, false
		}
		if isAlone(o) {
			d.alone = true
			d.Below, _ = nameOf("scratch", k.layers)
		}
	}
	return d, sources, d.Below != ""
}

// readsContext says that a mount shows files of a context, whose content nobody has
// read.
func readsContext(m plan.Mount) bool {
	return m.From.Kind == plan.FromContext || m.From.Kind == plan.FromNamed
}

// changes says that a source may be another one next time.
func changes(r plan.Remote) bool {
	if r.Git != nil {
		return len(r.Git.Commit) < 40 // hex digits of SHA-1
	}
	return r.Checksum == ""
}

// isAlone says that a copy makes the same layer whatever is below: names of owners
// are those of the stage.
func isAlone(c *plan.Copy) bool {
	return c.Link && c.Chmod == "" && strings.Trim(c.Chown, "0123456789:") == ""
}

// withoutProxies is a command without the proxies that the command line gives it:
// which one is used does not matter to the result, as with BuildKit.
func (k keyer) withoutProxies(r *plan.Run) *plan.Run {
	proxies := plan.Proxies(k.req.Args)
	c := *r
	c.Env = slices.DeleteFunc(slices.Clone(r.Env), func(e string) bool { return slices.Contains(proxies, e) })
	return &c
}

// key is that of the result of a step; reads are those of the stages that it reads
// from, content is the digest of what a copy takes, if it takes anything.
func (k keyer) key(d stepFacts, reads []stepKey, content string) (stepKey, error) {
	if content == "" && slices.Contains(reads, "") {
		return "", nil
	}
	if content == "" {
		d.Reads = reads
	}
	d.Content = content
	return nameOf(fmt.Sprintf("%T", d.Op), d)
}

// on is what the steps on top of a step stand on: its key, or, for a layer that is
// the same wherever it lies, that and where it lies.
func (k keyer) on(below stepKey, d stepFacts, key stepKey) (stepKey, error) {
	switch {
	case !d.alone:
		return key, nil
	case below == "" || key == "":
		return "", nil
	}
	return nameOf("on", []stepKey{below, key})
}
