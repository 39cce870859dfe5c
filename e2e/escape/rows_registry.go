package escape

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
)

// registryRows are what registries did to their clients.
func registryRows() []Attack {
	rows := []Attack{
		{ID: 80, Source: "CVE-2020-15157", Title: "a layer of a foreign URL whose host asks for the registry's credential",
			Want: []Outcome{Rejected}, Run: foreignLayer},
		{ID: 81, Source: "go-containerregistry #2193, #2243, CVE-2026-48978", Title: "realms that lead to metadata services, private networks and other hosts, by address, name, redirect and header tricks",
			Want: []Outcome{Rejected}, Run: realms},
		{ID: 82, Source: "go-containerregistry #2337, #2349, #2360", Title: "redirects of manifests and blobs to another host, which asks for the credential",
			Want: []Outcome{Contained}, Run: redirects},
		{ID: 83, Source: "class", Title: "a tag that means another image at each question, and a digest that does",
			Want: []Outcome{Contained}, Run: mutableTag},
		{ID: 84, Source: "class", Title: "an executor that was taken over asks for credentials, dials and pushes what is not its own",
			Want: []Outcome{Rejected}, Run: hostileRoles},
		{ID: 85, Source: "class", Title: "Location of an upload leads to another host, to the metadata service and up",
			Want: []Outcome{Contained}, Run: uploadLocation},
		{ID: 86, Source: "class", Title: "gzip bombs, bodies without an end and lengths that disagree, in manifests and tokens",
			Want: []Outcome{Rejected}, Run: answerBombs},
	}
	return inSection("2F", rows)
}

// login is a registry's password that must go nowhere else.
type login struct {
	*hostile.Registry
	password string
	other    *hostile.Server // of the same attacker, elsewhere
	args     []string
	env      []string
}

// loginAt starts a registry of the world that wants a password, and a server
// beside it.
func loginAt(t *Target, rules ...hostile.Rule) *login {
	t.Helper()
	l := &login{
		Registry: hostile.StartRegistry(t, hostile.Options{Listener: t.Public()}, rules...),
		other:    hostile.Serve(t, hostile.Options{Listener: t.Public()}),
		password: "pw-" + random(),
	}
	l.args = []string{"--insecure-registry", l.Addr, "--image-download-retry", "0", "--push-retry", "0"}
	l.env = []string{t.DockerConfig(map[string]string{l.Addr: l.password})}
	return l
}

// kept fails the attack where the other server heard a secret.
func (l *login) kept(t *Target, secrets ...string) {
	t.Helper()
	if told := l.other.Told(append(secrets, l.password)...); len(told) > 0 {
		t.Errorf("the credential was sent to another host: %q", told)
	}
}

func foreignLayer(t *Target) Outcome {
	l := loginAt(t)
	l.Basic(l.password)
	l.other.On(hostile.Rule{Do: hostile.Challenge(`Basic realm="r"`)})
	layer := busyboxLayer(t)
	for i, mediaType := range []types.MediaType{types.DockerForeignLayer, types.OCIUncompressedLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar"} {
		repo := fmt.Sprintf("foreign%d", i)
		var m v1.Manifest
		decode(t, l.ImageManifest(repo, v1.Config{}, layer), &m)
		m.Layers[0].MediaType, m.Layers[0].URLs = mediaType, []string{l.other.URL + "/layer"}
		m.Layers[0].Digest.Hex = strings.Repeat("0", 63) + fmt.Sprint(i) // the registry does not have it
		l.Manifest(repo, "1", string(types.OCIManifestSchema1), encode(t, m))
		r := t.Build(Build{Dockerfile: "FROM " + l.Addr + "/" + repo + ":1\nCOPY nonce /\n", Args: l.args, Env: l.env})
		r.Rejected(`(pull sha256:0|Dockerfile:1: ).*(not found|BLOB_UNKNOWN|foreign|not supported|nondistributable)`)
	}
	if n := l.other.Asked("", ""); n > 0 {
		t.Errorf("the foreign host was asked %d times", n)
	}
	if l.Asked("GET", "/v2/foreign2/manifests/1") == 0 {
		t.Error("nobody has asked for the image")
	}
	return Rejected
}

func realms(t *Target) Outcome {
	for name, address := range map[string]string{"metadata.test": "169.254.169.254", "private.test": "10.20.30.40", "loop.test": "127.0.0.1", "mapped.test": "fd00:ec2::254"} {
		t.Names.Set("081-"+name, func() []string { return []string{address} })
	}
	t.Names.Set("081-rebind.test", rebinding())
	l := loginAt(t)
	l.other.On(
		hostile.Rule{Path: "/hop", Do: hostile.Redirect(http.StatusFound, "http://081-metadata.test")},
		hostile.Rule{Path: "/take", Do: hostile.Tokens("taken")},
	)
	_, port, _ := net.SplitHostPort(l.other.Addr)
	var realm string
	l.On(hostile.Rule{Do: func(w http.ResponseWriter, r *http.Request) { hostile.Bearer(realm)(w, r) }})
	for i, to := range []string{
		"http://169.254.169.254/latest", "http://2852039166/latest", "http://[::ffff:169.254.169.254]/",
		"http://081-private.test/", "http://081-mapped.test/", "http://081-loop.test:2375/", "http://localhost:2375/",
		"http://081-rebind.test/token", l.other.URL + "/hop",
		"http://" + l.Addr + "@081-metadata.test/", "file:///etc/passwd", "gopher://081-private.test/", "http://public.test:" + port + "/take",
	} {
		repo := fmt.Sprintf("r%02d", i)
		realm = to
		r := t.Build(Build{Dockerfile: "FROM " + l.Addr + "/" + repo + ":1\nRUN true\n", Args: l.args, Env: l.env})
		r.Rejected(`Dockerfile:1: .*: resolve .*: .+`)
	}
	if len(l.other.Told(l.password)) == 0 {
		t.Fatal("no realm was ever given a credential: nothing was at stake")
	}
	downgrade(t)
	return Rejected
}

// downgrade has a realm by plain HTTP of a registry by TLS.
func downgrade(t *Target) {
	t.Helper()
	ca := registrytest.NewCA(t)
	t.Names.Set("081-tls.test", func() []string { return []string{PublicIPv4} })
	listener := t.Public()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	host, password := "081-tls.test:"+port, "pw-"+random()
	plain := hostile.Serve(t, hostile.Options{Listener: t.Public()}, hostile.Rule{Do: hostile.Tokens("taken")})
	safe := hostile.StartRegistry(t, hostile.Options{Listener: listener, TLS: ca, Names: []string{"081-tls.test"}}, hostile.Rule{Do: hostile.Bearer(plain.URL + "/take")})
	put(t, filepath.Join(t.Dir, "ca.pem"), string(ca.PEM), 0o644)
	r := t.Build(Build{
		Dockerfile: "FROM " + host + "/x:1\nRUN true\n", Env: []string{t.DockerConfig(map[string]string{host: password})},
		Args: []string{"--registry-certificate", host + "=" + filepath.Join(t.Dir, "ca.pem"), "--image-download-retry", "0"},
	})
	r.Rejected(`realm scheme "http" not allowed`)
	if safe.Asked("GET", "/v2/") == 0 || plain.Asked("", "") > 0 {
		t.Error("the realm by plain HTTP was asked, or nobody was")
	}
}

func redirects(t *Target) Outcome {
	const token = "registry-token-5f1c"
	l := loginAt(t)
	tokens := hostile.Rule{Path: "/token", Do: hostile.Tokens(token)}
	elsewhere := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	l.other = elsewhere.Server
	layer := busyboxLayer(t, hostile.Entry{Name: "nonce", Data: t.Nonce})
	for _, r := range []*hostile.Registry{l.Registry, elsewhere} {
		for _, repo := range []string{"blobs", "all"} {
			r.Image(repo, v1.Config{}, layer)
		}
	}
	elsewhere.On(hostile.Rule{Path: "/v2/drip/", Do: hostile.Challenge(`Basic realm="r"`)})
	l.On(tokens,
		hostile.Rule{Path: "/v2/blobs/blobs/", Do: hostile.Redirect(http.StatusTemporaryRedirect, elsewhere.URL)},
		hostile.Rule{Path: "/v2/all/", Do: hostile.Redirect(http.StatusPermanentRedirect, elsewhere.URL)},
		hostile.Rule{Path: "/v2/drip/", Do: hostile.Redirect(http.StatusTemporaryRedirect, elsewhere.URL)},
	)
	l.Token(l.URL+"/token", token)
	build := func(repo string) *Result {
		return t.Build(Build{Dockerfile: "FROM " + l.Addr + "/" + repo + ":1\nRUN [\"/bin/cat\", \"/nonce\"]\n", Args: l.args, Env: l.env})
	}
	build("blobs").Done(`\d $NONCE`)
	if len(l.Told(token)) == 0 || len(l.Told(l.password)) == 0 {
		t.Fatal("no credential was ever used")
	}
	if elsewhere.Asked("GET", "/v2/blobs/blobs/") == 0 {
		t.Fatal("the other host was never asked")
	}
	if r := build("all"); r.Status == 0 {
		r.Done(`\d $NONCE`)
	}
	build("drip").Rejected(`Dockerfile:1: .*: resolve .*: .+`)
	l.kept(t, token)
	return Contained
}

// mutableTag serves another image at each question for a tag.
func mutableTag(t *Target) Outcome {
	registry := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	var manifests [][]byte
	for i := range 4 {
		manifests = append(manifests, registry.ImageManifest("moves", v1.Config{Env: []string{"PATH=/bin"}}, busyboxLayer(t, hostile.Entry{Name: "which", Data: fmt.Sprint(i)})))
	}
	var n atomic.Int64
	serve := func(w http.ResponseWriter, r *http.Request) {
		i := n.Add(1) - 1
		hostile.Answer(http.StatusOK, http.Header{"Content-Type": {string(types.OCIManifestSchema1)}}, manifests[i%int64(len(manifests))])(w, r)
	}
	registry.On(hostile.Rule{Path: "/v2/moves/manifests/", Do: serve})
	ref := registry.Addr + "/moves:1"
	args := []string{"--insecure-registry", registry.Addr, "--image-download-retry", "0"}
	r := t.Build(Build{Dockerfile: "FROM " + ref + " AS one\nRUN echo one $(cat /which) $NONCE\nFROM " + ref + " AS two\n" +
		"COPY --from=" + ref + " /which /copied\nCOPY --from=one /which /one\nRUN echo two $(cat /which /copied /one)\n" +
		"RUN --mount=type=bind,from=" + ref + ",target=/m echo bound $(cat /m/which)\n", Args: args})
	r.Done(`\d one 0 $NONCE`, `\d two 000`, `\d bound 0`)
	if n.Load() != 1 {
		t.Errorf("the tag was looked up %d times", n.Load())
	}
	// A digest is a digest: what comes for another one is refused.
	n.Store(1)
	registry.Manifest("moves", "right", string(types.OCIManifestSchema1), manifests[0])
	r = t.Build(Build{Dockerfile: "FROM " + registry.Addr + "/moves@sha256:" + strings.Repeat("a", 64) + "\nRUN true\n", Args: args})
	r.Rejected(`digest mismatch`)
	return Contained
}

// hostileRoles has each role do what only another one may.
func hostileRoles(t *Target) Outcome {
	const breach = `broke the protocol`
	dockerfile := "FROM $BUSYBOX\nRUN echo $NONCE\n"
	for _, script := range []string{
		"build ask pull registry.example.com a/b", "build ask push registry.example.com a/b", "push ask pull registry.example.com a/b",
		"fetch ask push registry.example.com a/b", "push ask secret s",
		`build output {"kind":"tags","digest":"right"} | {}`, `push output {"kind":"stored","digest":"right"} | x`,
		`build output {"kind":"tar"} | x`, `build result {"digest":"sha256:` + strings.Repeat("ab", 32) + `"}`,
	} {
		r := t.BuildWith(script, Build{Dockerfile: dockerfile, Push: true})
		r.Rejected(breach)
		r.Hides(`got the answer .*(Password|Data):.`)
	}
	// A credential for where nothing is pushed to is not given, and what was asked
	// for goes on.
	r := t.BuildWith("push ask push registry.example.com a/b", Build{Dockerfile: dockerfile, Push: true})
	r.Done(`hostile: got the answer .*Password: .*nothing of this build is pushed to registry.example.com`)
	// Walls that are not the protocol's.
	script := "push dial $LOOP 10.20.30.40:80 169.254.169.254:80\nbuild dial $LOOP 10.20.30.40:80 169.254.169.254:80\n" +
		"fetch dial 10.20.30.40:80 169.254.169.254:80\nany write /store/index.json /context/nonce /in/request.json /kbuild-executor /etc/x"
	inner := hostile.Serve(t, hostile.Options{Listener: t.Loopback()})
	r = t.BuildWith(strings.ReplaceAll(script, "$LOOP", inner.Addr), Build{Dockerfile: dockerfile, Push: true})
	r.Hides(`hostile: (dial|write) .*: DONE`)
	r.Done(`\d $NONCE`, `hostile: dial 10.20.30.40:80: `, `hostile: write /context/nonce: `)
	if inner.Asked("", "") > 0 {
		t.Error("a server of the runner's loopback was reached")
	}
	return Rejected
}

func uploadLocation(t *Target) Outcome {
	t.Names.Set("085-metadata.test", func() []string { return []string{"169.254.169.254"} })
	for i, location := range []string{"OTHER/upload", "http://169.254.169.254/upload", "http://085-metadata.test/upload", "//10.20.30.40/upload", "../../../../../OTHER"} {
		l := loginAt(t)
		location = strings.ReplaceAll(location, "OTHER", l.other.URL)
		l.other.On(hostile.Rule{Do: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			hostile.Challenge(`Basic realm="r"`)(w, r)
		}})
		l.On(hostile.Rule{Method: "POST", Path: "/blobs/uploads/", Do: hostile.Answer(http.StatusAccepted, http.Header{"Location": {location}}, nil)})
		l.Basic(l.password)
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nRUN echo $NONCE\n", Destination: l.Addr + "/x:1", Args: l.args, Env: l.env})
		r.Rejected(`push `)
		l.kept(t)
		if l.Asked("POST", "/blobs/uploads/") == 0 || i == 0 && l.other.Asked("PUT", "/upload") == 0 {
			t.Error("nothing was ever uploaded")
		}
	}
	return Contained
}

// bomb is so many MiB of JSON's white space, packed.
func bomb(t *Target, mib int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	blank := bytes.Repeat([]byte(" "), 1<<20)
	for range mib {
		_, err := z.Write(blank)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

func answerBombs(t *Target) Outcome {
	const mib, most = 512, 64 << 20 // of an answer that does not end
	var sent atomic.Int64
	endless := func(mediaType string) http.HandlerFunc {
		part := bytes.Repeat([]byte(" "), 64<<10)
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			for total := 0; total < most; total += len(part) {
				if _, err := w.Write(part); err != nil {
					return
				}
				sent.Add(int64(len(part)))
			}
		}
	}
	packed := http.Header{"Content-Type": {string(types.OCIManifestSchema1)}, "Content-Encoding": {"gzip"}}
	for name, rules := range map[string][]hostile.Rule{
		"gzip manifest":    {{Path: "/manifests/", Do: hostile.Answer(http.StatusOK, packed, bomb(t, mib))}},
		"endless manifest": {{Path: "/manifests/", Do: endless(string(types.OCIManifestSchema1))}},
		"gzip token":       {{Path: "/token", Do: hostile.Answer(http.StatusOK, packed, bomb(t, mib))}, {Do: hostile.Bearer("http://SELF/token")}},
		"endless token":    {{Path: "/token", Do: endless("application/json")}, {Do: hostile.Bearer("http://SELF/token")}},
		"endless error":    {{Path: "/manifests/", Do: hostile.Endless(nil, bytes.Repeat([]byte("x"), 64<<10), most)}},
		"huge header":      {{Do: hostile.Challenge("Bearer realm=\"http://" + strings.Repeat("a", 2<<20) + "\"")}},
		"two lengths":      {{Do: raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n")}},
		"length and chunks": {{Do: raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: " +
			strings.Repeat("x", 1<<20) + "\r\n\r\n")}},
	} {
		listener := t.Public()
		for i := range rules {
			if strings.Contains(name, "token") && i == 1 {
				rules[i].Do = hostile.Bearer("http://" + listener.Addr().String() + "/token")
			}
		}
		registry := hostile.StartRegistry(t, hostile.Options{Listener: listener}, rules...)
		sent.Store(0)
		r := t.Build(Build{Dockerfile: "FROM " + registry.Addr + "/x:1\nRUN true\n", Args: []string{"--insecure-registry", registry.Addr, "--image-download-retry", "0"}})
		t.Log(name, r.Took)
		r.Rejected(`Dockerfile:1: .*: resolve .*: .+`)
		if n := sent.Load(); n > most/2 {
			t.Errorf("%s: %d bytes were taken", name, n)
		}
		if registry.Asked("", "") == 0 {
			t.Errorf("%s: nobody has asked", name)
		}
	}
	return Rejected
}

// raw answers with bytes as they are.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, text) // to a client that may have gone
	}
}
