package registry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func trusting(ca *registrytest.CA) http.RoundTripper {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}

// TestTLS goes through every flag that has to do with TLS, for a pull and a push.
func TestTLS(t *testing.T) {
	ca, stranger := registrytest.NewCA(t), registrytest.NewCA(t)
	r := registrytest.Start(t, registrytest.Options{TLS: ca})
	seed(t, r.Addr+"/base:1", randomImage(t, 1000, 1), remote.WithTransport(trusting(ca)))
	unknown := []string{"unknown authority", "--registry-certificate " + r.Addr + "=", "--skip-tls-verify-registry " + r.Addr}
	for _, test := range []struct {
		name       string
		cfg        registry.Config
		pull, push []string // what the error says; nil: it works
	}{
		{"nothing", registry.Config{}, unknown, unknown},
		{"roots", registry.Config{Roots: ca.PEM}, nil, nil},
		{"other roots", registry.Config{Roots: stranger.PEM}, unknown, unknown},
		{"certificate", registry.Config{Registry: request.Registry{Certificates: map[string][]byte{r.Addr: ca.PEM}}}, nil, nil},
		{"certificate of another host", registry.Config{Registry: request.Registry{Certificates: map[string][]byte{"localhost": ca.PEM, r.Addr: stranger.PEM}}}, unknown, unknown},
		{"certificate of another host only", registry.Config{Registry: request.Registry{Certificates: map[string][]byte{"127.0.0.1": ca.PEM}}}, unknown, unknown},
		{"skip host", registry.Config{Registry: request.Registry{SkipTLSHosts: []string{r.Addr}}}, nil, nil},
		{"skip another host", registry.Config{Registry: request.Registry{SkipTLSHosts: []string{"localhost"}}}, unknown, unknown},
		{"skip for pushes", registry.Config{Registry: request.Registry{SkipTLS: true}}, unknown, nil},
		{"skip for pulls", registry.Config{Registry: request.Registry{SkipTLSPull: true}}, nil, unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, test.cfg)
			_, err := c.Resolve(context.Background(), r.Addr+"/base:1", amd64)
			judge(t, err, request.ClassResolve, test.pull)
			judge(t, c.CheckPush(context.Background(), r.Addr+"/out"), request.ClassPush, test.push)
		})
	}
}

func judge(t *testing.T, err error, class request.Class, want []string) {
	t.Helper()
	if want != nil {
		wantError(t, err, class, want...)
	} else if err != nil {
		t.Error(err)
	}
}

// TestPlainHTTP reaches a registry without TLS under a name that is not this
// machine's: only a flag allows it.
func TestPlainHTTP(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	seed(t, back.Addr+"/base:1", randomImage(t, 1000, 1))
	const host = "registry.test:5000"
	refused := []string{"plain HTTP", "--insecure-registry " + host}
	for _, test := range []struct {
		name       string
		reg        request.Registry
		pull, push []string
	}{
		{"nothing", request.Registry{}, refused, refused},
		{"host", request.Registry{InsecureHosts: []string{"REGISTRY.test:5000"}}, nil, nil},
		{"another host", request.Registry{InsecureHosts: []string{"registry.test", "test:5000"}}, refused, refused},
		{"pushes", request.Registry{Insecure: true}, append(refused, "--insecure-pull"), nil},
		{"pulls", request.Registry{InsecurePull: true}, nil, append(refused, "--insecure for")},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, registry.Config{Registry: test.reg})
			registry.Hosts(c, map[string]string{host: back.Addr})
			_, err := c.Resolve(context.Background(), host+"/base:1", amd64)
			judge(t, err, request.ClassResolve, test.pull)
			judge(t, c.CheckPush(context.Background(), host+"/out"), request.ClassPush, test.push)
		})
	}
	t.Run("private network", func(t *testing.T) {
		// Another library falls back to plain HTTP there, with the password.
		c := newClient(t, registry.Config{})
		registry.Hosts(c, map[string]string{"10.1.2.3:5000": back.Addr})
		_, err := c.Resolve(context.Background(), "10.1.2.3:5000/base:1", amd64)
		wantError(t, err, request.ClassResolve, "plain HTTP", "--insecure-registry 10.1.2.3:5000")
	})
}

func TestBadCertificate(t *testing.T) {
	_, err := registry.New(registry.Config{Registry: request.Registry{Certificates: map[string][]byte{"r.test": []byte("no PEM")}}})
	wantError(t, err, request.ClassResolve, "r.test", "no PEM certificate")
	if _, err := registry.New(registry.Config{Roots: []byte("x")}); err == nil {
		t.Error("bad roots are taken")
	}
}
