package flags

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// Network holds the flags about what a build may reach. Only the launcher has
// them: it has a gateway, a pod has the cluster's rules.
type Network struct {
	mode        string
	allow, deny []string
	audit       string
}

// RegisterNetwork adds the flags to fs. Call it before Register, which refuses
// them by name where they are not there.
func RegisterNetwork(fs *pflag.FlagSet) *Network {
	n := &Network{mode: policy.EgressDefault.String()}
	fs.Var(choiceValue{&n.mode, []string{"none", "default", "allowlist"}}, "net", "what a build may reach: `mode` default is the internet without this host, private and link-local networks and clouds' metadata; allowlist is what --allow-net names; none is nothing, in steps not even an interface. Registries, contexts and proxies that the command line names are reached to fetch and push, in every mode")
	fs.Var(listValue{&n.allow}, "allow-net", "let RUN, ADD and pulls reach this `host`[:port] or cidr[:port], private ones too; *.example.com is all names below; may be repeated. 127.0.0.1 and localhost are this host's, which steps call host-gateway (see --add-host)")
	fs.Var(listValue{&n.deny}, "deny-net", "let nothing reach this `host` or cidr[:port], whatever else is said; may be repeated")
	fs.StringVar(&n.audit, "audit-log", "", "write a line of JSON to this `file` for every connection, flow of datagrams and question for a name, allowed or denied, and the counts at the end")
	group(fs, groupNet, "net", "allow-net", "deny-net", "audit-log")
	return n
}

// Policy makes a policy of the flags.
func (n *Network) Policy() (e policy.Egress, err error) {
	if e.Mode, err = policy.ParseEgressMode(n.mode); err != nil {
		return e, usagef("", "--net: %s", err)
	}
	if e.Mode == policy.EgressNone && len(n.allow) > 0 {
		return e, usagef("use --net=allowlist", "--allow-net cannot be used with --net=none")
	}
	for _, text := range n.allow {
		rules, err := policy.ParseAllow(text)
		if err != nil {
			return e, badRule("--allow-net", text, err, "a name, an address or a prefix such as 10.1.0.0/16, each with or without :port")
		}
		e.Allow = append(e.Allow, rules...)
	}
	for _, text := range n.deny {
		rules, err := policy.ParseDeny(text)
		if err != nil {
			return e, badRule("--deny-net", text, err, "a name, an address or a prefix such as 10.1.0.0/16")
		}
		e.Deny = append(e.Deny, rules...)
	}
	return e, nil
}

// badRule says what is wrong with a rule that policy does not take; of what people
// get wrong most the parser's own words say little.
func badRule(flag, text string, err error, hint string) error {
	scheme, _, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return usagef("a CI variable may be unset", "%s: empty", flag)
	case isURL:
		return usagef("leave "+scheme+":// and the path out: HOST or HOST:PORT", "%s: a URL is no network rule", flag)
	case strings.Contains(text, ","):
		return usagef("repeat the flag for several", "%s: %q: one network rule at a time", flag, text)
	}
	return usagef(hint, "%s: %s", flag, err)
}

// AuditLog is the file of --audit-log as an absolute path, or empty. No link of
// a stranger's checkout, in dir or in the context, may lead it elsewhere.
func (n *Network) AuditLog(dir, context string) (string, error) {
	return record("audit-log", n.audit, dir, context)
}

// Proxy is what the environment says of proxies. Names in upper case go first;
// HTTP_PROXY and HTTPS_PROXY are for URLs of that kind. A proxy that cannot be
// understood is an error: Go's client would go past it, without a word.
func Proxy(env func(string) (string, bool)) (p request.Proxy, err error) {
	get := func(name string) (at, value string) {
		if v, _ := env(name); v != "" {
			return name, v
		}
		v, _ := env(strings.ToLower(name))
		return strings.ToLower(name), v
	}
	_, p.No = get("NO_PROXY")
	for _, v := range []struct {
		name string
		to   *string
	}{{"HTTP_PROXY", &p.HTTP}, {"HTTPS_PROXY", &p.HTTPS}} {
		at, value := get(v.name)
		if *v.to = value; value != "" && !isProxy(value) {
			return p, usagef("for example http://proxy.example.com:3128", "%s: %q is no URL of a proxy", at, withoutUser(value))
		}
	}
	return p, nil
}

// isProxy tells whether Go's client takes text for a proxy: a URL, or host:port.
func isProxy(text string) bool {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return false
	}
	_, err = strconv.ParseUint(cmp.Or(u.Port(), "1"), 10, 16)
	return err == nil
}

// withoutUser hides what stands before the host of a URL, even of a broken one.
func withoutUser(text string) string {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	scheme, _, ok := strings.Cut(text[:at], "://")
	if ok {
		scheme += "://"
	} else {
		scheme = ""
	}
	return scheme + "xxxxx" + text[at:]
}

// Named are the places that a command line names: registries that are pushed
// to or pulled from, URLs of contexts, proxies. The name of a registry or a proxy
// may stand for this host too; that of a URL only if it has no dot: else whoever
// owns it could lead fetch to what listens here. What is no name and no address
// opens nothing.
func Named(r request.Build, p request.Proxy) []policy.EgressRule {
	var list reach
	for _, d := range r.Destinations { // with --no-push too: bases lie beside them
		list.registry(r.Registry, registryOf(d))
	}
	for _, p := range r.CacheFrom {
		list.place(r.Registry, p)
	}
	for _, to := range r.CacheTo {
		list.place(r.Registry, to.CachePlace)
	}
	for _, h := range slices.Concat(r.Registry.InsecureHosts, r.Registry.SkipTLSHosts) {
		list.registry(r.Registry, h)
	}
	for h := range r.Registry.Certificates {
		list.registry(r.Registry, h)
	}
	for _, m := range r.Registry.Maps {
		host, _, _ := strings.Cut(m.Location, "/")
		list.registry(r.Registry, host)
		if !r.Registry.SkipFallback {
			list.registry(r.Registry, m.Host)
		}
	}
	list.url(r.Source.URL, false)
	list.url(r.DockerfileURL, false)
	for _, c := range r.Contexts {
		list.url(c.Source.URL, false)
		if c.Image != "" {
			list.registry(r.Registry, registryOf(c.Image))
		}
	}
	for _, proxy := range []string{p.HTTP, p.HTTPS} {
		if proxy != "" && !strings.Contains(proxy, "://") {
			proxy = "http://" + proxy
		}
		list.url(proxy, true)
	}
	return list
}

// reach collects the rules of Named.
type reach []policy.EgressRule

// add adds a rule for host and port; near: it may stand for this host.
func (l *reach) add(host, port string, near bool) {
	rules, err := policy.ParseAllow(net.JoinHostPort(host, port))
	if strings.Count(host, ":") == 0 {
		rules, err = policy.ParseAllow(host + ":" + port)
	}
	if err != nil {
		return
	}
	for _, r := range rules {
		r.Near = near && r.Name != ""
		*l = append(*l, r)
	}
}

// Ports where none is written.
const portHTTPS, portHTTP, portSSH, portGit = "443", "80", "22", "9418"

// registry adds a registry host[:port], at the ports that a client tries.
func (l *reach) registry(r request.Registry, at string) {
	host, port := splitHost(at)
	if port != "" {
		l.add(host, port, true)
		return
	}
	l.add(host, portHTTPS, true)
	if r.Insecure || r.InsecurePull || slices.Contains(r.InsecureHosts, at) || isLoopback(host) {
		l.add(host, portHTTP, true)
	}
	if at == dockerHub {
		l.add(dockerHubTokens, portHTTPS, false)
	}
}

// place adds the registry of a place of results of steps, if it is in one.
func (l *reach) place(r request.Registry, p request.CachePlace) {
	if p.Layout == "" {
		l.registry(r, registryOf(p.Name()))
	}
}

// dockerHubTokens is where Docker Hub sends its clients for tokens.
const dockerHubTokens = "auth.docker.io"

// url adds the server of a context in one of its forms, or a proxy.
func (l *reach) url(text string, near bool) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case scpStyle.MatchString(text):
		host, _, _ := strings.Cut(text[strings.IndexByte(text, '@')+1:], ":")
		l.add(host, portSSH, undotted(host))
	case strings.HasPrefix(text, "github.com/"):
		l.add("github.com", portHTTPS, false)
	case err != nil || u.Host == "":
	case u.Port() != "":
		l.add(u.Hostname(), u.Port(), near || undotted(u.Hostname()))
	default:
		port := map[string]string{"http": portHTTP, "https": portHTTPS, "ssh": portSSH, "git": portGit}[u.Scheme]
		l.add(u.Hostname(), port, near || undotted(u.Hostname()))
	}
}

// undotted tells whether a name is one of this network, such as localhost.
func undotted(host string) bool { return !strings.Contains(host, ".") }

// splitHost takes host[:port] apart.
func splitHost(at string) (host, port string) {
	if h, p, err := net.SplitHostPort(at); err == nil {
		return h, p
	}
	return strings.Trim(at, "[]"), ""
}

// registryOf is the registry of an image reference, by docker's rule for what is
// a host.
func registryOf(ref string) string {
	first, _, more := strings.Cut(ref, "/")
	if !more || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return dockerHub
	}
	if h, err := host(first); err == nil {
		return h
	}
	return first
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback()
}
