package registrytest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	service = "registrytest"
	issuer  = "registrytest"
)

// Tokens is a token server as Docker Hub has one: who shows User and Password
// gets what is asked for, others get pulls only, of all but private/*.
type Tokens struct {
	URL string
	// Lifetime is how long a token is good; 0: 5 minutes. Registries allow
	// a minute more.
	Lifetime time.Duration

	cert []byte // PEM
	der  []byte
	key  *rsa.PrivateKey

	mu    sync.Mutex
	asked []string
}

// StartTokens starts a token server that ends with the test.
func StartTokens(t testing.TB) *Tokens {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registrytest tokens"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &Tokens{cert: pemOf("CERTIFICATE", der), der: der, key: key}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	// localhost and not 127.0.0.1: a realm elsewhere must be a name.
	s.URL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/token"
	return s
}

// Asked are the requests so far: the user (or -) and the scopes.
func (s *Tokens) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// ServeHTTP hands out a token.
func (s *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if ok && (user != User || password != Password) {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	if !ok {
		user = "-"
	}
	var granted []access
	for _, scope := range r.URL.Query()["scope"] {
		parts := strings.Split(scope, ":")
		if len(parts) == 3 {
			granted = append(granted, grant(parts, ok))
		}
	}
	s.mu.Lock()
	s.asked = append(s.asked, user+" "+strings.Join(r.URL.Query()["scope"], " "))
	s.mu.Unlock()
	token, err := s.sign(granted)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

func grant(scope []string, known bool) access {
	a := access{Type: scope[0], Name: scope[1], Actions: []string{}}
	for action := range strings.SplitSeq(scope[2], ",") {
		if known || action == "pull" && !strings.HasPrefix(a.Name, "private/") {
			a.Actions = append(a.Actions, action)
		}
	}
	return a
}

// sign makes a JSON Web Token with RS256 and the certificate in x5c.
func (s *Tokens) sign(granted []access) (string, error) {
	life := s.Lifetime
	if life == 0 {
		life = 5 * time.Minute
	}
	now := time.Now()
	head, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(s.der)}})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]any{
		"iss": issuer, "sub": User, "aud": service, "jti": rand.Text(), "access": granted,
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
