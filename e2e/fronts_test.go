package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
)

// tb is the script's test; testscript's T is one underneath.
func tb(ts *testscript.TestScript) testing.TB {
	t, ok := ts.Value(testKey{}).(testing.TB)
	if !ok {
		ts.Fatalf("no testing.TB")
	}
	return t
}

type testKey struct{}

// registryCommand starts a registry: registry NAME [auth] [tls] [readonly].
// $NAME is its host; with auth, $SIDE/login.json is a Docker config that may enter;
// with tls, ./ca.pem is the certificate of its authority.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: registry NAME [auth] [tls] [readonly]")
	}
	t := tb(ts)
	var opt registrytest.Options
	for _, a := range args[1:] {
		switch a {
		case "auth":
			opt.Auth = true
		case "readonly":
			opt.ReadOnly = true
		case "tls":
			opt.TLS = registrytest.NewCA(t)
			ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), opt.TLS.PEM, 0o644))
		default:
			ts.Fatalf("registry: no option %s", a)
		}
	}
	r := registrytest.Start(t, opt)
	ts.Setenv(args[0], r.Addr)
	ts.Setenv("EXPAND", ts.Getenv("EXPAND")+" "+args[0])
	if opt.Auth {
		login(ts, r.Addr)
	}
}

func login(ts *testscript.TestScript, host string) {
	auth := base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + registrytest.Password))
	b, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("SIDE"), "login.json"), b, 0o600))
}

// serveCommand serves a directory by HTTP: serve NAME DIR.
func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 || neg {
		ts.Fatalf("usage: serve NAME DIR [AUTHORIZATION]")
	}
	dir := ts.MkAbs(args[1])
	files := http.FileServer(http.Dir(dir))
	git := &cgi.Handler{
		Path: "/bin/sh", Args: []string{"-c", "exec git http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		InheritEnv: []string{"PATH"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(args) == 3 && r.Header.Get("Authorization") != args[2] {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, ".git/") {
			git.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	tb(ts).Cleanup(s.Close)
	host := s.Listener.Addr().String()
	ts.Setenv(args[0], host)
	ts.Setenv("PORT_"+args[0], host[strings.LastIndexByte(host, ':')+1:])
	ts.Setenv("EXPAND", ts.Getenv("EXPAND")+" "+args[0]+" PORT_"+args[0])
}

// proxyCommand starts a front before a registry (host:port, or - for none)
// that fails once for each further group of words, groups divided by `;`:
//
//	proxy NAME TARGET method=GET path=/blobs/ times=2 status=500 ; path=/x reset
func proxyCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: proxy NAME TARGET [FAULT...]")
	}
	target := ""
	if args[1] != "-" {
		target = "http://" + args[1]
	}
	var faults []registrytest.Fault
	var f registrytest.Fault
	for _, word := range append(args[2:], ";") {
		k, v, _ := strings.Cut(word, "=")
		n, _ := strconv.Atoi(v) // 0 for words that are no number
		switch k {
		case "method":
			f.Method = v
		case "path":
			f.Path = v
		case "times":
			f.Times = n
		case "skip":
			f.Skip = n
		case "status":
			f.Status = n
		case "reset":
			f.Reset = true
		case "corrupt":
			f.Corrupt = true
		case "truncate":
			f.Truncate = int64(n)
		case "short":
			f.Short = int64(n)
		case "delay":
			f.Delay = time.Duration(n) * time.Second
		case ";":
			if f.Method+f.Path != "" {
				faults = append(faults, f)
			}
			f = registrytest.Fault{}
		default:
			ts.Fatalf("proxy: no word %s", word)
		}
	}
	p := registrytest.StartProxy(tb(ts), target, nil, faults...)
	ts.Setenv(args[0], p.Addr)
	ts.Setenv("EXPAND", ts.Getenv("EXPAND")+" "+args[0])
}
