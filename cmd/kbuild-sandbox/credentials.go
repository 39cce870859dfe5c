package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Limits on what is read for credentials.
const (
	maxConfig     = 4 << 20 // bytes of config.json
	maxHelper     = 1 << 20 // bytes of a helper's answer
	helperTimeout = time.Minute
	// keepFor is how long an answer is used again without asking a helper:
	// short, because the tokens of cloud registries expire.
	keepFor = 2 * time.Minute
	// maxAsks bounds the questions of one build: the sandbox is not trusted,
	// and each may start a program.
	maxAsks = 4096
)

// hubKey is Docker Hub's key in config.json, hubHost its name in an Ask.
const (
	hubKey  = "https://index.docker.io/v1/"
	hubHost = "index.docker.io"
)

// dockerConfig is the part of docker's config.json that is about credentials.
type dockerConfig struct {
	Auths       map[string]authEntry `json:"auths"`
	CredsStore  string               `json:"credsStore"`
	CredHelpers map[string]string    `json:"credHelpers"`

	source string // where it was read, for messages
}

// authEntry is a credential in the file.
type authEntry struct {
	Auth          string `json:"auth"` // base64 of username:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials answers the executor's questions from docker's configuration:
// $DOCKER_AUTH_CONFIG, then $DOCKER_CONFIG/config.json, host by host.
//
// A credential is given only for the very host that it is filed under, with
// the repository path as a further restriction where the key has one; never
// for a sibling or a parent host. For a push, only the hosts that
// the build pushes to are answered for.
type credentials struct {
	configs []dockerConfig
	push    map[string]bool // hosts that are pushed to
	lookup  helperFunc
	tell    func(text string) // which source was used; never a secret

	mu   sync.Mutex // helpers run one at a time
	kept map[string]keptAnswer
	said map[string]bool // what was told already
	asks int
}

type keptAnswer struct {
	answer request.Answer
	until  time.Time
}

// helperFunc asks a docker-credential-NAME program for a server's credential.
type helperFunc func(ctx context.Context, name, server string) (request.Answer, error)

// errNoCredential says that a helper has no credential for a server.
var errNoCredential = errors.New("no credential")

// newCredentials reads the configuration. A file that is not there is no error.
func newCredentials(env func(string) (string, bool), pushed []string, tell func(string)) (*credentials, error) {
	c := &credentials{lookup: runHelper, tell: tell, push: map[string]bool{}, kept: map[string]keptAnswer{}, said: map[string]bool{}}
	for _, d := range pushed {
		c.push[destinationHost(d)] = true
	}
	if v, _ := env("DOCKER_AUTH_CONFIG"); v != "" {
		cfg, err := parseConfig([]byte(v), "DOCKER_AUTH_CONFIG")
		if err != nil {
			return nil, err
		}
		c.configs = append(c.configs, cfg)
	}
	dir, _ := env("DOCKER_CONFIG")
	if dir == "" {
		home, _ := env("HOME")
		if home == "" {
			return c, nil
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	data, err := readBounded(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	cfg, err := parseConfig(data, path)
	if err != nil {
		return nil, err
	}
	c.configs = append(c.configs, cfg)
	return c, nil
}

// parseConfig reads a config. The error never quotes it: it holds secrets.
func parseConfig(data []byte, source string) (dockerConfig, error) {
	cfg := dockerConfig{source: source}
	if len(strings.TrimSpace(string(data))) == 0 {
		return cfg, nil
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return cfg, fmt.Errorf("read credentials: %s: not JSON at byte %d", source, syntax.Offset)
		}
		return cfg, fmt.Errorf("read credentials: %s: not of the form of docker's config.json", source)
	}
	return cfg, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, err
}

// answer answers one question. It is safe for concurrent use.
func (c *credentials) answer(ctx context.Context, ask request.Ask) request.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := c.find(ctx, ask)
	if err != nil {
		a = request.Answer{Error: err.Error()}
	}
	a.ID = ask.ID
	return a
}

func (c *credentials) find(ctx context.Context, ask request.Ask) (request.Answer, error) {
	host := normalHost(ask.Host)
	if c.asks++; c.asks > maxAsks {
		return request.Answer{}, errors.New("too many questions for credentials")
	}
	if !plausible(host) || (ask.Repository != "" && !plausible(ask.Repository)) {
		return request.Answer{}, fmt.Errorf("%q is not a registry", ask.Host)
	}
	scope := cmp.Or(ask.Scope, request.Pull)
	if scope != request.Pull && (scope != request.Push || !c.push[host]) {
		return request.Answer{}, fmt.Errorf("nothing of this build is pushed to %s: its credential is not given for that", host)
	}
	for _, cfg := range c.configs {
		a, from, err := c.fromConfig(ctx, cfg, host, ask.Repository)
		if err != nil {
			return request.Answer{}, err // who asks says for which host
		}
		if from != "" {
			c.sayOnce(fmt.Sprintf("credential for %s (%s): %s", host, scope, from))
			return a, nil
		}
	}
	c.sayOnce(fmt.Sprintf("credential for %s (%s): none, anonymous", host, scope))
	return request.Answer{}, nil
}

func (c *credentials) sayOnce(text string) {
	if !c.said[text] {
		c.said[text] = true
		c.tell(text)
	}
}

// fromConfig looks in one config, in docker's order: the helper of the host,
// the helper of all, the file itself. from is empty where nothing was found.
func (c *credentials) fromConfig(ctx context.Context, cfg dockerConfig, host, repository string) (a request.Answer, from string, err error) {
	name, key := cfg.CredsStore, "credsStore"
	for _, k := range keysFor(cfg.CredHelpers, host) {
		name, key = cfg.CredHelpers[k], "credHelpers"
		break
	}
	if name != "" {
		a, err := c.ask(ctx, name, host)
		if err == nil {
			return a, fmt.Sprintf("docker-credential-%s (%s in %s)", name, key, cfg.source), nil
		}
		if !errors.Is(err, errNoCredential) {
			return a, "", fmt.Errorf("docker-credential-%s (%s in %s): %w", name, key, cfg.source, err)
		}
	}
	for _, want := range scopes(host, repository) {
		for _, k := range keysFor(cfg.Auths, want) {
			a, err := cfg.Auths[k].answer()
			if err != nil {
				return a, "", fmt.Errorf("auths %s in %s: %w", k, cfg.source, err)
			}
			if a.Username+a.Password+a.IdentityToken+a.RegistryToken != "" {
				return a, fmt.Sprintf("auths %s in %s", k, cfg.source), nil
			}
		}
	}
	return request.Answer{}, "", nil
}

// ask asks a helper, or uses what it said a moment ago.
func (c *credentials) ask(ctx context.Context, name, host string) (request.Answer, error) {
	id := name + "\x00" + host
	if k, ok := c.kept[id]; ok && time.Now().Before(k.until) {
		return k.answer, nil
	}
	server := host
	if host == hubHost {
		server = hubKey
	}
	a, err := c.lookup(ctx, name, server)
	if err != nil {
		return request.Answer{}, err
	}
	c.kept[id] = keptAnswer{a, time.Now().Add(keepFor)}
	return a, nil
}

// scopes are the keys that may hold the credential of a repository, the most
// special first: host/a/b, host/a, host.
func scopes(host, repository string) []string {
	var list []string
	for path := strings.Trim(repository, "/"); path != ""; {
		list = append(list, host+"/"+path)
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
	return append(list, host)
}

// keysFor are the keys of a config that mean want. Docker's own spelling of
// Docker Hub comes first, the others in the order of the alphabet.
func keysFor[V any](entries map[string]V, want string) []string {
	var keys []string
	for k := range entries {
		if normalKey(k) == want {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if i := slices.Index(keys, hubKey); i > 0 {
		keys[0], keys[i] = keys[i], keys[0]
	}
	return keys
}

// normalKey brings a key of config.json into the form host[:port][/path]:
// without scheme, and without the /v1/ or /v2/ that old logins wrote.
func normalKey(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	key = strings.TrimRight(key, "/")
	host, path, _ := strings.Cut(key, "/")
	host = normalHost(host)
	if path == "" || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

// normalHost gives Docker Hub its one name.
func normalHost(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "docker.io", "registry-1.docker.io":
		return hubHost
	}
	return host
}

// destinationHost is the registry of an image reference: what stands before
// the first slash if it looks like a host, else Docker Hub.
func destinationHost(ref string) string {
	first, _, ok := strings.Cut(ref, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return hubHost
	}
	return normalHost(first)
}

// plausible tells whether s may be the name of a host or repository.
func plausible(s string) bool {
	return s != "" && len(s) <= 512 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_:/[]%ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// answer is the credential of an entry; an empty one is none.
func (e authEntry) answer() (request.Answer, error) {
	a := request.Answer{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return a, nil
	}
	raw, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		raw, err = base64.RawStdEncoding.DecodeString(e.Auth)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
	if err != nil || !ok {
		return a, errors.New("auth is not base64 of username:password")
	}
	a.Username, a.Password = user, password
	return a, nil
}
