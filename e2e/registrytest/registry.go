package registrytest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// User and Password are the one credential of a registry with Options.Auth or
// Options.Tokens.
const (
	User     = "builder"
	Password = "let-me-in"
	// the two of them in the form of htpasswd(1), bcrypt with cost 5
	htpasswd = "builder:$2y$05$uVZyN5bqWq1nFqzJkG3oHePDaUf4fUF25rQLc1.PHp421zTGlUgz2\n"
)

// Options are what a registry is like.
type Options struct {
	Auth bool // wants User and Password as basic credentials
	// Password is wanted with Auth instead of the constant.
	Password string
	Tokens   *Tokens // wants a token of this server
	TLS      *CA     // speaks TLS with a certificate of this CA for 127.0.0.1 and localhost
	Mirror   string  // is a pull-through cache of the registry at this URL
	// ReadOnly refuses every push.
	ReadOnly bool
}

// Registry is a running docker-registry.
type Registry struct {
	Addr string // 127.0.0.1:port
	URL  string // http(s)://Addr
	Dir  string // where it keeps its blobs
	log  *os.File
}

// Start starts a registry that ends with the test.
func Start(t testing.TB, opt Options) *Registry {
	t.Helper()
	dir := t.TempDir()
	for range 5 { // another process can take the port before the registry does
		r := &Registry{Addr: freeAddr(t), Dir: filepath.Join(dir, "data")}
		r.URL = "http://" + r.Addr
		if opt.TLS != nil {
			r.URL = "https://" + r.Addr
		}
		if r.start(t, dir, opt) {
			return r
		}
	}
	t.Fatalf("docker-registry does not start")
	return nil
}

func (r *Registry) start(t testing.TB, dir string, opt Options) bool {
	conf := filepath.Join(dir, "config.yml")
	write(t, conf, r.config(t, dir, opt))
	var err error
	if r.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	// A test that panics or times out runs no cleanup.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (Debian's package docker-registry has it)", err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		r.log.Close()
	})
	return r.wait(t, opt, done)
}

// wait waits until the registry answers; false: it has ended.
func (r *Registry) wait(t testing.TB, opt Options, done chan struct{}) bool {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: opt.TLS.pool()}, DisableKeepAlives: true,
	}}
	for range 400 {
		resp, err := client.Get(r.URL + "/v2/")
		if err == nil {
			resp.Body.Close()
			return true
		}
		select {
		case <-done:
			t.Logf("docker-registry: %s", r.Log(t))
			return false
		case <-time.After(25 * time.Millisecond):
		}
	}
	t.Fatalf("docker-registry does not answer: %s", r.Log(t))
	return false
}

// Log is what the registry has written so far.
func (r *Registry) Log(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(r.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *Registry) config(t testing.TB, dir string, opt Options) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&b, "storage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\n", r.Dir)
	if opt.ReadOnly {
		fmt.Fprintf(&b, "  maintenance: {readonly: {enabled: true}}\n")
	}
	fmt.Fprintf(&b, "http:\n  addr: %q\n  relativeurls: true\n", r.Addr)
	if opt.TLS != nil {
		cert, key := opt.TLS.Leaf(t)
		write(t, filepath.Join(dir, "cert.pem"), cert)
		write(t, filepath.Join(dir, "key.pem"), key)
		fmt.Fprintf(&b, "  tls: {certificate: %q, key: %q}\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	switch {
	case opt.Tokens != nil:
		write(t, filepath.Join(dir, "token.pem"), opt.Tokens.cert)
		fmt.Fprintf(&b, "auth:\n  token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}\n",
			opt.Tokens.URL, service, issuer, filepath.Join(dir, "token.pem"))
	case opt.Auth:
		write(t, filepath.Join(dir, "htpasswd"), opt.htpasswd(t))
		fmt.Fprintf(&b, "auth:\n  htpasswd: {realm: test, path: %q}\n", filepath.Join(dir, "htpasswd"))
	}
	if opt.Mirror != "" {
		fmt.Fprintf(&b, "proxy: {remoteurl: %q}\n", opt.Mirror)
	}
	return b.Bytes()
}

func (o Options) htpasswd(t testing.TB) []byte {
	if o.Password == "" {
		return []byte(htpasswd)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "%s:%s\n", User, hash)
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// pool is nil for no CA: the system's.
func (c *CA) pool() *x509.CertPool {
	if c == nil {
		return nil
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(c.PEM)
	return p
}
