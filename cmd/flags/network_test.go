package flags

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestNamed: what a command line names is reached by fetch and push, at the ports
// that it means.
func TestNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		r    request.Build
		p    request.Proxy
		want string
	}{
		{name: "nothing"},
		{name: "no push", r: request.Build{NoPush: true, Destinations: []string{"reg:5000/x"}}, want: "reg:5000"},
		{name: "destinations", r: request.Build{Destinations: []string{"reg:5000/x:1", "localhost/x", "127.0.0.1:5000/x", "[::1]:5000/x"}},
			want: "reg:5000 127.0.0.1/32:443 ::1/128:443 127.0.0.1/32:80 ::1/128:80 127.0.0.1/32:5000 ::1/128:5000"},
		{name: "Docker Hub", r: request.Build{Destinations: []string{"team/app:1"}}, want: "index.docker.io:443 auth.docker.io:443"},
		{name: "plain HTTP", r: request.Build{Destinations: []string{"reg.example/x"}, Registry: request.Registry{Insecure: true}}, want: "reg.example:443 reg.example:80"},
		{name: "registries", r: request.Build{Registry: request.Registry{
			InsecureHosts: []string{"a.example"}, SkipTLSHosts: []string{"b.example:1"}, Certificates: map[string][]byte{"c.example:2": nil},
			Maps: []request.Mirror{{Host: "gcr.io", Location: "mirror:5000/prefix"}},
		}}, want: "a.example:443 a.example:80 b.example:1 c.example:2 mirror:5000 gcr.io:443"},
		{name: "no fallback", r: request.Build{Registry: request.Registry{
			SkipFallback: true, Maps: []request.Mirror{{Host: "gcr.io", Location: "mirror:5000"}},
		}}, want: "mirror:5000"},
		{name: "contexts", r: request.Build{
			Source: request.Source{URL: "https://user:secret@git.example/x.git#main"}, DockerfileURL: "http://web.example:8080/Dockerfile",
			Contexts: []request.NamedContext{
				{Source: request.Source{URL: "git@scp.example:x.git"}}, {Source: request.Source{URL: "ssh://git@ssh.example/x"}},
				{Source: request.Source{URL: "git://daemon/x"}}, {Source: request.Source{URL: "github.com/a/b"}}, {Image: "img.example/x:1"},
				{Source: request.Source{URL: "http://[::1]:8080/x"}},
			},
		}, want: "git.example:443 web.example:8080 scp.example:22 ssh.example:22 daemon:9418 github.com:443 img.example:443 ::1/128:8080"},
		{name: "proxies", p: request.Proxy{HTTP: "http://u:p@proxy.example:3128", HTTPS: "127.0.0.1:8888", No: "corp.example"}, want: "proxy.example:3128 127.0.0.1/32:8888"},
		{name: "results of steps", r: request.Build{
			CacheFrom: []request.CachePlace{{Repository: "a.example/x"}, {Reference: "b.example:5000/x:1"}, {Layout: "/l", Called: "l.example/x"}},
			CacheTo:   []request.CacheTarget{{CachePlace: request.CachePlace{Reference: "c.example/x"}}},
		}, want: "a.example:443 b.example:5000 c.example:443"},
		{name: "no names", r: request.Build{Destinations: []string{"127.1:5000/x", "a b/x"}, Source: request.Source{URL: "http://%zz/"}}, want: "index.docker.io:443 auth.docker.io:443"},
	} {
		var got []string
		for _, rule := range Named(c.r, c.p) {
			far := c.name == "contexts" && rule.Name != "img.example" && rule.Name != "daemon" || rule.Name == dockerHubTokens
			if rule.Near != (rule.Name != "" && !far) {
				t.Errorf("%s: %+v", c.name, rule)
			}
			host := rule.Name
			if host == "" {
				host = rule.Prefix.String()
			}
			got = append(got, fmt.Sprintf("%s:%d", host, rule.Port))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

func TestPolicyFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // of the policy, or a part of the error and its hint
	}{
		{"", "default 0 0"},
		{"--net none --deny-net example.com", "none 0 1"},
		{"--net=allowlist --allow-net a.example:443 --allow-net localhost:1", "allowlist 3 0"},
		{"--net none --allow-net a.example", "--allow-net cannot be used with --net=none"},
		{"--allow-net http://a.example", "--allow-net: a URL is no network rule; leave http:// and the path out"},
		{"--allow-net 127.1", "--allow-net: network rule"},
		{"--allow-net a,b", "one network rule at a time; repeat the flag"},
		{"--allow-net=", "--allow-net: empty; a CI variable may be unset"},
		{"--deny-net=", "--deny-net: empty; a CI variable may be unset"},
		{"--deny-net a.example:443", "a name is denied with all its ports"},
		{"--net host", "want one of none, default, allowlist"},
	} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		n := RegisterNetwork(fs)
		err := fs.Parse(strings.Fields(c.args))
		got := ""
		if err == nil {
			e, perr := n.Policy()
			got, err = fmt.Sprintf("%v %d %d", e.Mode, len(e.Allow), len(e.Deny)), perr
			var known *Error
			if errors.As(perr, &known) {
				err = fmt.Errorf("%w; %s", perr, known.Hint)
			}
		}
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.args, got, err, c.want)
		}
	}
}

// A pod has no gateway: the flags about it are refused by name.
func TestPodHasNoGateway(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	b := Register(fs)
	if err := fs.Parse([]string{"--net=none", "--audit-log", "f", "--allow-net", "a", "--deny-net", "b"}); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.Request(From{Args: []string{"."}, Dir: t.TempDir(), Env: func(string) (string, bool) { return "", false }})
	if err == nil {
		t.Fatal("taken")
	}
	for _, flag := range []string{"--net: not supported", "--audit-log: not supported", "--allow-net: not supported", "--deny-net: not supported"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: no %q", err, flag)
		}
	}
	if e := err.(*Error); !strings.Contains(e.Hint, "NetworkPolicy") {
		t.Errorf("hint %q", e.Hint)
	}
}

// host-gateway is docker's word for this host.
func TestHostGateway(t *testing.T) {
	for gateway, want := range map[string]string{"192.0.0.1": "192.0.0.1", "": "a pod has no host-gateway"} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		b := Register(fs)
		if err := fs.Parse([]string{"--no-push", "--add-host", "here:host-gateway"}); err != nil {
			t.Fatal(err)
		}
		from := From{Args: []string{"."}, Dir: t.TempDir(), Env: func(string) (string, bool) { return "", false }}
		if gateway != "" {
			from.HostGateway = netip.MustParseAddr(gateway)
		}
		var r request.Build
		err := b.runOptions(&r, from)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && !slices.Equal(r.Run.Hosts, []request.KeyValue{{Key: "here", Value: want}}) {
			t.Errorf("%q: %+v, %v", gateway, r.Run.Hosts, err)
		}
	}
}

// Names of variables in upper case go before those in lower case.
func TestProxy(t *testing.T) {
	env := map[string]string{"http_proxy": "a", "HTTP_PROXY": "b", "https_proxy": "c", "NO_PROXY": "", "no_proxy": "d"}
	get := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	got, err := Proxy(get)
	if want := (request.Proxy{HTTP: "b", HTTPS: "c", No: "d"}); got != want || err != nil {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for value, want := range map[string]string{
		"":                                   "",
		"proxy:3128":                         "",
		"http://user:pw@proxy":               "",
		"https://[::1]:3128/":                "",
		"socks5://127.0.0.1:1080":            "",
		":::bad":                             `":::bad"`,
		"http://":                            `"http://"`,
		"ftp://proxy":                        `"ftp://proxy"`,
		"http://proxy corp:23599":            `"http://proxy corp:23599"`,
		"http://127.0.0.1:2359x":             `"http://127.0.0.1:2359x"`,
		"http://127.0.0.1:99999":             `"http://127.0.0.1:99999"`,
		"http://user:hun/t@er2@127.0.0.1:1x": `"http://xxxxx@127.0.0.1:1x"`,
		"user:hunter2@127.0.0.1:1x":          `"xxxxx@127.0.0.1:1x"`,
	} {
		for _, name := range []string{"HTTP_PROXY", "https_proxy"} {
			clear(env)
			env[name] = value
			_, err := Proxy(get)
			if want == "" && err != nil || want != "" && (err == nil || err.Error() != name+": "+want+" is no URL of a proxy" || err.(*Error).Input) {
				t.Errorf("%s=%s: %v, want %s", name, value, err, want)
			}
		}
	}
}
