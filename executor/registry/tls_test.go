package registry_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
)

func trusting(ca *registrytest.CA) http.RoundTripper {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}
