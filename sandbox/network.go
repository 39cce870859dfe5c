package sandbox

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// Network says what the sandboxes may reach, and who is told of it.
type Network struct {
	// Run is the policy of RUN steps and of what the Dockerfile downloads: all
	// that the role build does.
	Run policy.Egress
	// Named are the places that the command line names. Fetch and push reach
	// them beside what Run allows.
	Named []policy.EgressRule
	Proxy request.Proxy
	// Audit takes a record of each flow and each question to a name server, from
	// several goroutines; Closed the counts of a sandbox that has ended. nil:
	// nobody is told.
	Audit  func(gateway.Record)
	Closed func(request.Role, gateway.Counters)
	// Mask takes secrets out of the names of steps, which records bear. nil: none.
	Mask func(string) string
}

// egress is the policy of a role. Where RUN steps have no network, the others
// have what was named and nothing else.
func (n Network) egress(role request.Role) policy.Egress {
	e := n.Run
	if role == request.RoleBuild {
		return e
	}
	if e.Mode == policy.EgressNone {
		e.Mode = policy.EgressAllowlist
	}
	e.Allow = append(slices.Clone(e.Allow), n.Named...)
	return e
}

// none says whether a role has no network but its loopback.
func (n Network) none(role request.Role) bool {
	return n.egress(role).Mode == policy.EgressNone
}

// inside is what a role's executor is told of its gateway.
func (n Network) inside(role request.Role) request.Gateway {
	in := request.Gateway{Loopback4: gateway.GatewayIPv4.String(), Loopback6: gateway.GatewayIPv6.String(), Proxy: n.Proxy}
	if role == request.RoleBuild {
		in.Proxy = in.Proxy.WithoutPasswords()
	}
	return in
}

// gate is the gateway of one sandbox, with what the launcher wants to know from
// it. A nil gate is that of a sandbox without a network.
type gate struct {
	role    request.Role
	net     Network
	gateway *gateway.Gateway
	steps   map[int]string // that run, by number

	mu     sync.Mutex
	denied []gateway.Record // different destinations, at most mostDenied
	more   bool             // there are more
}

// mostDenied is how many denied destinations a failure tells.
const mostDenied = 3

// openGate starts the gateway behind link.
func openGate(c Config, role request.Role, link *os.File) (*gate, error) {
	resolv, err := hostFile(c.ResolvConf, "/etc/resolv.conf")
	if err != nil {
		return nil, notIn("resolv.conf", err)
	}
	hosts, err := hostFile("", "/etc/hosts")
	if err != nil {
		return nil, notIn("hosts", err)
	}
	g := &gate{role: role, net: c.Network, steps: map[int]string{}}
	g.gateway, err = gateway.New(gateway.Config{
		Link: link, Egress: c.Network.egress(role), Role: string(role), Sink: g.record,
		Resolvers: gateway.ParseResolvers(resolv), Hosts: gateway.ParseHosts(hosts), Search: gateway.ParseSearch(resolv),
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// record takes a record; one at a time.
func (g *gate) record(r gateway.Record) {
	if g.net.Audit != nil {
		g.net.Audit(r)
	}
	if r.Verdict == gateway.Denied {
		g.remember(r)
	}
}

// remember keeps what was denied, for whoever has to explain a failure.
func (g *gate) remember(r gateway.Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	same := func(old gateway.Record) bool {
		return old.Protocol == r.Protocol && old.Address == r.Address && old.Port == r.Port && old.Name == r.Name
	}
	switch {
	case slices.ContainsFunc(g.denied, same):
	case len(g.denied) == mostDenied:
		g.more = true
	default:
		g.denied = append(g.denied, r)
	}
}

// follow passes events on and tells the gateway which steps run.
func (g *gate) follow(to request.Sink) request.Sink {
	if g == nil {
		return to
	}
	return followed{to, g}
}

type followed struct {
	to   request.Sink
	gate *gate
}

// Emit implements request.Sink. Events of one sandbox come one at a time.
func (f followed) Emit(e request.Event) {
	f.gate.note(e)
	f.to.Emit(e)
}

// mostSteps is how many steps may be remembered: an executor of ours runs fewer
// at once.
const mostSteps = 64

// mostStepName is how much of a step's name is told, in bytes: each record bears
// those of all steps that run.
const mostStepName = 200

// stepName is the name of a step as records bear it. Masked first: a part of a
// secret would not be known again.
func (g *gate) stepName(name string) string {
	if g.net.Mask != nil {
		name = g.net.Mask(name)
	}
	if len(name) <= mostStepName {
		return name
	}
	const more = "..."
	end := mostStepName - len(more)
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return strings.Clone(name[:end]) + more // the rest is not kept
}

func (g *gate) note(e request.Event) {
	switch {
	case e.Kind == request.EventStart && len(g.steps) < mostSteps:
		g.steps[e.Step] = g.stepName(e.Name)
	case e.Kind == request.EventDone:
		delete(g.steps, e.Step)
	default:
		return
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(g.steps)) {
		names = append(names, g.steps[n])
	}
	g.gateway.SetSteps(names)
}

// close ends the gateway, after its sandbox has ended.
func (g *gate) close() error {
	if g == nil {
		return nil
	}
	err := g.gateway.Close()
	if g.net.Closed != nil {
		g.net.Closed(g.role, g.gateway.Counters())
	}
	return err
}

// explain adds to a failure what the policy has denied: it may be why.
func (g *gate) explain(f *request.Failure) {
	if g == nil || f == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.denied {
		if tellDenied(f, r) {
			f.Hint = "" // it was about a server that is not there
		}
	}
	for _, r := range g.denied {
		addLine(&f.Hint, deniedText(r))
	}
	if g.more {
		addLine(&f.Hint, "the egress policy denied others too: --audit-log FILE tells all")
	}
}

// tellDenied says in the message of a failure that a connection was not refused by
// a server, but denied here: the executor cannot tell the two apart.
func tellDenied(f *request.Failure, r gateway.Record) bool {
	if r.Protocol == gateway.ProtocolDNS || r.Port == 0 {
		return false
	}
	at := netip.AddrPortFrom(r.Address, r.Port).String()
	told := strings.NewReplacer(
		"connection refused by "+at, "the egress policy denies "+at,
		at+": connect: connection refused", at+": the egress policy denies it",
	).Replace(f.Message)
	changed := told != f.Message
	f.Message = told
	return changed
}

func addLine(text *string, line string) {
	if *text != "" {
		*text += "\n"
	}
	*text += line
}

// deniedText tells what was denied, and which rule would allow it, where that
// is for the user to decide lightly.
func deniedText(r gateway.Record) string {
	text, rules := "the egress policy denied ", []string{}
	opens := policy.Opens(r.Reason)
	if r.Protocol == gateway.ProtocolDNS {
		text += "the name " + shownName(r.Name)
		if opens == policy.OpensByName {
			rules = append(rules, r.Name)
		}
	} else {
		at, port := r.Address.String(), ""
		if r.Port != 0 {
			at, port = netip.AddrPortFrom(r.Address, r.Port).String(), fmt.Sprintf(":%d", r.Port)
		}
		text += at
		if r.Name != "" {
			text += ", " + shownName(r.Name)
		}
		if opens == policy.OpensByName && r.Name != "" {
			rules = append(rules, r.Name+port)
		}
		if opens != policy.OpensNever {
			rules = append(rules, at)
		}
	}
	text += " (" + r.Reason + ")"
	for _, rule := range rules {
		if _, err := policy.ParseAllow(rule); err == nil {
			return text + "; --allow-net " + rule + " allows it"
		}
	}
	return text
}

// shownName is a name that a sandbox asked for. One that is no ordinary name is
// quoted: nobody shall run a part of it.
func shownName(name string) string {
	if _, err := policy.ParseAllow(name); err == nil {
		return name
	}
	return fmt.Sprintf("%.80q", name)
}
