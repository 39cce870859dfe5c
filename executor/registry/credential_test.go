package registry_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestRedirectedBlobsCarryNoCredential has blobs and uploads redirected to
// another host, with basic and with token authentication.
func TestRedirectedBlobsCarryNoCredential(t *testing.T) {
	for _, test := range []struct {
		name string
		opt  registrytest.Options
	}{
		{"basic", registrytest.Options{Auth: true}},
		{"token", registrytest.Options{Tokens: registrytest.StartTokens(t)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := context.Background()
			back := registrytest.Start(t, test.opt)
			// The other host is an open registry with the same blobs.
			open := registrytest.Start(t, registrytest.Options{})
			image := randomImage(t, 1000, 2)
			seed(t, back.Addr+"/base:1", image, remote.WithAuth(authn.FromConfig(login())))
			seed(t, open.Addr+"/base:1", image)
			elsewhere := registrytest.StartProxy(t, open.URL, nil)
			front := registrytest.StartProxy(t, back.URL, nil, fault{Method: "GET", Path: blobs, Redirect: elsewhere.URL})
			c := newClient(t, registry.Config{Keychain: logins{front.Addr: login()}})
			img, err := c.Resolve(ctx, front.Addr+"/base:1", amd64)
			if err != nil {
				t.Fatal(err)
			}
			st := newStore(t)
			if err := pullAll(t, c, img, st); err != nil {
				t.Fatal(err)
			}
			pulled := len(elsewhere.Seen("GET", blobs))
			if pulled != 3 {
				t.Errorf("%d blobs came from the other host, want 3", pulled)
			}
			// Uploads go there too.
			front.Fail(fault{Method: "POST", Path: uploads, Redirect: elsewhere.URL})
			desc := keep(t, st, randomImage(t, 5000, 1), true)
			_ = c.Push(ctx, st, desc, front.Addr+"/out:1", nil)
			if len(elsewhere.Seen("PUT", uploads)) == 0 {
				t.Error("no upload went to the other host")
			}
			for _, s := range elsewhere.Seen("", "") {
				if s.Authorization != "" {
					t.Errorf("%s %s carried a credential", s.Method, s.Path)
				}
			}
			authorized := 0
			for _, s := range front.Seen("", manifests) {
				if s.Authorization != "" {
					authorized++
				}
			}
			if authorized == 0 {
				t.Error("the registry itself got no credential: the test tests nothing")
			}
		})
	}
}

// TestUploadLocationElsewhere has the registry say that an upload goes on at
// another host.
func TestUploadLocationElsewhere(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{Auth: true})
	elsewhere := registrytest.StartProxy(t, "", nil, fault{Method: "PUT", Status: 201})
	front := registrytest.StartProxy(t, back.URL, nil,
		fault{Method: "POST", Status: 202, Header: http.Header{"Location": {elsewhere.URL + "/x?z=1&sig=a%2Bb"}}},
		fault{Method: "PUT", Path: manifests, Status: 201})
	c := newClient(t, registry.Config{Keychain: logins{front.Addr: login()}})
	st := newStore(t)
	if err := c.Push(context.Background(), st, keep(t, st, randomImage(t, 5000, 1), true), front.Addr+"/out:1", nil); err != nil {
		t.Fatal(err)
	}
	seen := elsewhere.Seen("PUT", "/x")
	if len(seen) != 2 {
		t.Fatalf("%d uploads", len(seen))
	}
	for _, s := range seen {
		if s.Authorization != "" || !strings.HasPrefix(s.Query, "z=1&sig=a%2Bb&digest=sha256%3A") {
			t.Errorf("%+v", s)
		}
	}
}

// TestRealm has a registry name a token server that is none of its business.
func TestRealm(t *testing.T) {
	var mu sync.Mutex
	var got []string
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("Authorization"))
	}))
	t.Cleanup(trap.Close)
	for _, test := range []struct{ name, realm, want string }{
		{"another address", trap.URL, "private or link-local"},
		{"metadata service", "http://169.254.169.254/token", "private or link-local"},
		{"metadata service in decimal", "http://2852039166/token", "private or link-local"},
		{"another protocol", "file:///etc/passwd", "scheme"},
		{"none", "", "realm"},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := registrytest.StartProxy(t, "", nil, fault{Status: 401, Header: http.Header{
				"Www-Authenticate": {`Bearer realm="` + test.realm + `",service="x"`}}})
			c := newClient(t, registry.Config{Keychain: logins{front.Addr: login()}})
			_, err := c.Resolve(context.Background(), front.Addr+"/base:1", amd64)
			wantError(t, err, request.ClassResolve, test.want)
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) > 0 {
		t.Errorf("the trap was asked with %q", got)
	}
}

// TestTokenServerGetsTheCredential documents what the protocol wants: the token
// server that the registry names sees the password, the registry never does.
func TestTokenServerGetsTheCredential(t *testing.T) {
	tokens := registrytest.StartTokens(t)
	back := registrytest.Start(t, registrytest.Options{Tokens: tokens})
	seed(t, back.Addr+"/private/base:1", randomImage(t, 1000, 1), remote.WithAuth(authn.FromConfig(login())))
	front := registrytest.StartProxy(t, back.URL, nil)
	c := newClient(t, registry.Config{Keychain: logins{front.Addr: login()}})
	before := len(tokens.Asked())
	img, err := c.Resolve(context.Background(), front.Addr+"/private/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if err := pullAll(t, c, img, newStore(t)); err != nil {
		t.Fatal(err)
	}
	asked := tokens.Asked()[before:]
	if len(asked) != 1 || asked[0] != "builder repository:private/base:pull" {
		t.Errorf("tokens asked for: %q", asked)
	}
	secret := base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + registrytest.Password))
	for _, s := range front.Seen("", "") {
		if strings.Contains(s.Authorization, secret) {
			t.Errorf("%s %s carried the password", s.Method, s.Path)
		}
	}
	_, err = newClient(t, registry.Config{Keychain: logins{front.Addr: authn.AuthConfig{Username: "eve", Password: "x"}}}).
		Resolve(context.Background(), front.Addr+"/private/base:1", amd64)
	wantError(t, err, request.ClassResolve, "refuses the credential of user eve", "says localhost:")
}

// targets notes what a keychain is asked.
type targets struct {
	mu  sync.Mutex
	got []registry.Target
}

func (k *targets) Resolve(r authn.Resource) (authn.Authenticator, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, r.(registry.Target))
	return authn.Anonymous, nil
}

func TestKeychainIsAskedByScope(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	seed(t, back.Addr+"/team/base:1", randomImage(t, 1000, 1))
	k := &targets{}
	c := newClient(t, registry.Config{Keychain: k})
	if _, err := c.Resolve(context.Background(), back.Addr+"/team/base:1", amd64); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckPush(context.Background(), back.Addr+"/team/app"); err != nil {
		t.Fatal(err)
	}
	want := []registry.Target{{Host: back.Addr, Repository: "team/base", Scope: request.Pull}, {Host: back.Addr, Repository: "team/app", Scope: request.Push}}
	if len(k.got) != 2 || k.got[0] != want[0] || k.got[1] != want[1] {
		t.Errorf("asked %+v, want %+v", k.got, want)
	}
}

func TestRedirectIntoPrivateNetwork(t *testing.T) {
	for _, test := range []struct {
		from, to string
		ok       bool
	}{
		{"registry.example.com", "storage.example.com", true},
		{"registry.example.com", "8.8.8.8:443", true},
		{"registry.example.com", "169.254.169.254", false},
		{"registry.example.com", "127.0.0.1:5000", false},
		{"registry.example.com", "localhost:5000", false},
		{"registry.example.com", "[::1]:80", false},
		{"registry.example.com", "[fe80::1%25eth0]:80", false},
		{"registry.example.com", "[::ffff:10.0.0.1]", false},
		{"registry.example.com", "10.1.2.3", false},
		{"registry.example.com", "0.0.0.0", false},
		{"registry.example.com", "2130706433", false},
		{"registry.example.com", "0x7f.1", false},
		{"registry.example.com", "127.1", false},
		{"10.0.0.1:5000", "10.0.0.2:9000", true},
		{"10.0.0.1:5000", "169.254.169.254", false},
		{"localhost:5000", "127.0.0.1:9000", true},
		{"127.0.0.1:5000", "127.0.0.1:5001", true},
	} {
		if err := registry.CheckHop(test.from, test.to); (err == nil) != test.ok {
			t.Errorf("%s -> %s: %v", test.from, test.to, err)
		}
	}
}

// TestTokenRunsOut has a token end between the small steps of an upload and the
// blob itself: it is sent again from its beginning with a new one.
func TestTokenRunsOut(t *testing.T) {
	tokens := registrytest.StartTokens(t)
	back := registrytest.Start(t, registrytest.Options{Tokens: tokens})
	ended := http.Header{"Www-Authenticate": {`Bearer realm="` + tokens.URL + `",service="registrytest",scope="repository:out:pull,push",error="invalid_token"`}}
	front := registrytest.StartProxy(t, back.URL, nil,
		fault{Method: "PUT", Path: uploads, Status: 401, Header: ended, Times: 1},
		fault{Method: "PUT", Path: manifests, Status: 401, Header: ended, Times: 1})
	c := newClient(t, registry.Config{Keychain: logins{front.Addr: login()}, Registry: request.Registry{}})
	st := newStore(t)
	if err := c.Push(context.Background(), st, keep(t, st, randomImage(t, 1<<20, 1), true), front.Addr+"/out:1", nil); err != nil {
		t.Fatal(err)
	}
	if n := len(front.Seen("POST", uploads)); n != 2 {
		t.Errorf("%d uploads begun, want 2", n)
	}
}
