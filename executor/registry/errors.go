package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Error is what went wrong with a registry, in the user's terms.
type Error struct {
	Class request.Class // resolve, push or resource
	Msg   string        // complete, without the hint
	Hint  string        // what to do about it, or empty
	Err   error         // the cause; its text may hold what the registry said
}

func (e *Error) Error() string { return e.Msg }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// credentialError is a keychain that failed.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return "no credential: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// plainError is a request by plain HTTP that nobody allowed.
type plainError struct{ host string }

func (e *plainError) Error() string { return "plain HTTP to " + e.host + " is not allowed" }

// formError is an answer that breaks the rules of its form.
type formError struct{ msg string }

func (e *formError) Error() string { return e.msg }

// mismatchError is content that is not what its descriptor says. got is zero
// if only the size is known.
type mismatchError struct {
	want, got         v1.Hash
	wantSize, gotSize int64
}

func (e *mismatchError) Error() string {
	if e.got == (v1.Hash{}) {
		return fmt.Sprintf("wrong size: wanted %s with %d bytes, got %d bytes", e.want, e.wantSize, e.gotSize)
	}
	if e.wantSize != e.gotSize {
		return fmt.Sprintf("digest mismatch: wanted %s with %d bytes, got %s with %d bytes", e.want, e.wantSize, e.got, e.gotSize)
	}
	return fmt.Sprintf("digest mismatch: wanted %s, got %s", e.want, e.got)
}

// explain makes an *Error of err: what (and where) failed, for which reason,
// and what to do. An *Error stays as it is.
func (s *session) explain(what string, err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	e := &Error{Class: request.ClassResolve, Err: err}
	if s.key.scope == request.Push {
		e.Class = request.ClassPush
	}
	class, reason, hint := reasonOf(err, s)
	if class != "" {
		e.Class = class
	}
	e.Msg, e.Hint = what+": "+reason, hint
	return e
}

// reasonOf says in the user's terms why err happened. class is empty unless the
// error has one of its own.
func reasonOf(err error, s *session) (class request.Class, reason, hint string) {
	switch {
	case errors.Is(err, context.Canceled):
		return request.ClassCanceled, "canceled", ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return request.ClassResource, "no space left in the workspace", "choose a larger disk with --work-dir"
	}
	for _, f := range []func(*session, error) (string, string){ofProxy, ofTLS, ofStatus, ofNetwork, ofForm} {
		if reason, hint = f(s, err); reason != "" {
			return "", reason, hint
		}
	}
	return "", clean(innermost(err)), ""
}

// innermost is the text of err without the address that net/http puts before
// it: an address may hold a signature.
func innermost(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

func (s *session) host() string { return clean(s.repo.RegistryStr()) }

// ofProxy is about a proxy that could not be reached: the registry has no part in
// it.
func ofProxy(s *session, err error) (string, string) {
	var (
		op      *net.OpError
		dns     *net.DNSError
		timeout net.Error
	)
	if !errors.As(err, &op) || op.Op != "proxyconnect" {
		return "", ""
	}
	proxy := s.proxy(err) + ", the proxy of HTTP_PROXY or HTTPS_PROXY"
	hint := "is the proxy running, and is this its port?"
	switch {
	case errors.Is(op.Err, syscall.ECONNREFUSED): // worded as that of a registry: see sandbox's tellDenied
		return "connection refused by " + proxy, hint
	case errors.As(op.Err, &dns):
		return "cannot resolve the name of " + proxy + ": " + clean(dns.Err), hint
	case errors.As(op.Err, &timeout) && timeout.Timeout():
		return "no answer from " + proxy + ", in time", hint
	}
	return "cannot connect to " + proxy + ": " + clean(op.Err.Error()), hint
}

// proxy is the address of the proxy for the request that failed with err.
func (s *session) proxy(err error) string {
	const unknown = "an address that is not known"
	var failed *url.Error
	if s.c.net.cfg.Proxy == nil || !errors.As(err, &failed) {
		return unknown
	}
	asked, err := url.Parse(failed.URL)
	if err != nil {
		return unknown
	}
	proxy, err := s.c.net.cfg.Proxy(&http.Request{URL: asked})
	if err != nil || proxy == nil {
		return unknown
	}
	return clean(proxy.Host)
}

func ofTLS(s *session, err error) (string, string) {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
	)
	flag := "--skip-tls-verify-registry " + s.host()
	switch {
	case errors.As(err, &unknown):
		return "the certificate of " + s.host() + " is signed by an unknown authority",
			"trust it with --registry-certificate " + s.host() + "=/path/to/ca.pem, or do not verify it with " + flag
	case errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return "the certificate of " + s.host() + " is not valid: " + clean(innermost(err)),
			"do not verify it with " + flag
	}
	var (
		plain  *plainError
		record tls.RecordHeaderError
	)
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) {
		var status *transport.Error
		if errors.As(err, &status) {
			return "", "" // plain HTTP was tried too, and says more
		}
		return s.host() + " speaks plain HTTP, not TLS", s.plainHint()
	}
	if errors.As(err, &plain) {
		if plain.host != s.repo.RegistryStr() {
			return s.host() + " redirects to plain HTTP at " + clean(plain.host) + ": refused", ""
		}
		return "no TLS at " + s.host() + ", and plain HTTP is not allowed", s.plainHint()
	}
	return "", ""
}

func (s *session) plainHint() string {
	flag := "--insecure-pull"
	if s.key.scope == request.Push {
		flag = "--insecure"
	}
	return "allow plain HTTP with --insecure-registry " + s.host() + " (or " + flag + " for all)"
}

func ofStatus(s *session, err error) (string, string) {
	var status *transport.Error
	if !errors.As(err, &status) {
		return "", ""
	}
	said := said(status)
	at := ""
	if r := status.Request; r != nil && r.URL != nil && r.URL.Host != s.repo.RegistryStr() {
		at = " (says " + clean(r.URL.Host) + ")"
	}
	push := s.key.scope == request.Push
	switch status.StatusCode {
	case http.StatusUnauthorized:
		return s.unauthorized(at)
	case http.StatusForbidden:
		if push {
			return s.asWhom() + " may not push to " + clean(s.repo.Name()) + at + said, s.loginHint()
		}
		return s.asWhom() + " may not pull from " + clean(s.repo.Name()) + at + said, s.loginHint()
	case http.StatusNotFound:
		return "not found at " + s.host() + at + said, ""
	case http.StatusTooManyRequests:
		return s.host() + " answers 429: too many requests" + at + said, "log in for a higher limit, or use --registry-mirror"
	case http.StatusMethodNotAllowed:
		if push {
			return s.host() + " takes no pushes" + at + said, ""
		}
	}
	return fmt.Sprintf("%s answers %d %s%s%s", s.host(), status.StatusCode,
		strings.ToLower(http.StatusText(status.StatusCode)), at, said), ""
}

func (s *session) unauthorized(at string) (string, string) {
	who := s.identity()
	if who.text == "" {
		missing := ""
		if s.key.scope == request.Pull {
			missing = "; the repository may also not exist"
		}
		return s.host() + " wants a credential for " + clean(s.repo.RepositoryStr()) + ", and there is none for it" + at +
			" (401 unauthorized)" + missing, s.loginHint()
	}
	return s.host() + " refuses " + who.text + at + " (401 unauthorized)", s.loginHint()
}

func (s *session) loginHint() string {
	host := s.host()
	if host == "index.docker.io" {
		host = "https://index.docker.io/v1/"
	}
	return "credentials come from auths, credHelpers and credsStore of $DOCKER_CONFIG/config.json; the key is " + host
}

func (s *session) asWhom() string {
	if who := s.identity(); who.text != "" {
		return strings.TrimPrefix(who.text, "the credential of ")
	}
	return "an anonymous client"
}

// said is what the registry said about an error, for the end of a message.
func said(e *transport.Error) string {
	var parts []string
	for _, d := range e.Errors {
		parts = append(parts, strings.TrimSuffix(strings.TrimSpace(string(d.Code)+": "+d.Message), ":"))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + clean(strings.Join(parts, "; "))
}

func ofNetwork(s *session, err error) (string, string) {
	var (
		dns     *net.DNSError
		timeout net.Error
		stall   *stallError
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused by " + s.dialed(err), "is the registry running, and is this its port?"
	case errors.As(err, &dns):
		return "cannot resolve the name " + clean(dns.Name) + ": " + clean(dns.Err), ""
	case errors.As(err, &stall):
		return s.host() + ": " + stall.Error(), ""
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer from " + s.dialed(err) + " in time", ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return s.host() + " broke the connection", ""
	}
	return "", ""
}

// dialed is the host that was meant, with the address that was dialed if it
// differs.
func (s *session) dialed(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Addr == nil || strings.HasPrefix(s.host(), op.Addr.String()) {
		return s.host()
	}
	return s.host() + " (" + op.Addr.String() + ")"
}

func ofForm(s *session, err error) (string, string) {
	var mismatch *mismatchError
	if errors.As(err, &mismatch) {
		return "what came from " + clean(s.repo.Name()) + " is corrupt: " + mismatch.Error(), ""
	}
	var platform *platformError
	if errors.As(err, &platform) {
		return clean(err.Error()), "choose another with --platform, or FROM --platform=..."
	}
	var credential *credentialError
	if errors.As(err, &credential) {
		return "no credential for " + s.host() + ": " + clean(credential.err.Error()), ""
	}
	return "", ""
}

// clean makes text of a registry or user fit for a message: no control
// characters, one line, not too long.
func clean(s string) string {
	const most = 300
	var b strings.Builder
	for _, r := range s {
		switch {
		case b.Len() >= most:
			return b.String() + "..."
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
