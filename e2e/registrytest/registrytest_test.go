package registrytest_test

import (
	"net/http"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
)

func get(t *testing.T, url string, auth bool) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if auth {
		req.SetBasicAuth(registrytest.User, registrytest.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestAuth(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{Auth: true})
	if got := get(t, r.URL+"/v2/", false); got != http.StatusUnauthorized {
		t.Errorf("without a password: %d", got)
	}
	if got := get(t, r.URL+"/v2/", true); got != http.StatusOK {
		t.Errorf("with the password: %d", got)
	}
}

func TestProxyFailsAndHeals(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, r.URL, nil, registrytest.Fault{Path: "/v2/", Status: 503, Times: 2})
	for i, want := range []int{503, 503, 200} {
		if got := get(t, p.URL+"/v2/", false); got != want {
			t.Errorf("request %d: status %d, want %d", i, got, want)
		}
	}
	if n := len(p.Seen("GET", "/v2/")); n != 3 {
		t.Errorf("%d requests seen", n)
	}
}
