package registry_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

type fault = registrytest.Fault

const blobs, manifests, uploads = "/blobs/sha256:", "/manifests/", "/blobs/uploads/"

// TestPullThroughFaults pulls from a registry that fails and gets well, or does
// not.
func TestPullThroughFaults(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	image := randomImage(t, 3<<20, 1)
	seed(t, back.Addr+"/base:1", image)
	for _, test := range []struct {
		name   string
		faults []fault
		retry  int
		want   []string // nil: it succeeds
	}{
		{"healthy", nil, 0, nil},
		{"500 twice at the door", []fault{{Path: "/v2/", Status: 500, Times: 2}}, 0, nil},
		{"500 twice for the manifest", []fault{{Path: manifests, Status: 500, Times: 2}}, 0, nil},
		{"503 twice for blobs", []fault{{Path: blobs, Status: 503, Times: 2}}, 0, nil},
		{"429 once", []fault{{Path: blobs, Status: 429, Times: 1}}, 0, nil},
		{"reset", []fault{{Path: manifests, Reset: true, Times: 1}, {Path: blobs, Reset: true, Times: 2}}, 0, nil},
		{"truncated twice", []fault{{Path: blobs, Skip: 1, Truncate: 1000, Times: 2}}, 0, nil},
		{"truncated, no ranges", []fault{{Path: blobs, Skip: 1, Truncate: 2 << 20, Times: 1}, {Path: blobs, Skip: 1, Status: 416, Times: 1}}, 0, nil},
		{"corrupt once", []fault{{Path: blobs, Skip: 1, Corrupt: true, Times: 1}}, 0, nil},
		{"short once", []fault{{Path: blobs, Skip: 1, Short: 1000, Times: 1}}, 0, nil},
		{"no length", []fault{{Path: blobs, Unchunked: true}}, 0, nil},
		{"500 five times, asked for", []fault{{Path: manifests, Status: 500, Times: 5}}, 5, nil},

		{"500 for ever", []fault{{Path: manifests, Status: 500}}, 0, []string{"resolve", "answers 500"}},
		{"500 at the door for ever", []fault{{Path: "/v2/", Status: 500}}, 0, []string{"resolve", "answers 500"}},
		{"500 five times", []fault{{Path: blobs, Skip: 1, Status: 500, Times: 5}}, 3, []string{"pull sha256:", "answers 500"}},
		{"401", []fault{{Path: manifests, Status: 401}}, 0, []string{"wants a credential for base", "none"}},
		{"403", []fault{{Path: manifests, Status: 403, Body: `{"errors":[{"code":"DENIED","message":"no \u001b[31mway"}]}`}}, 0,
			[]string{"may not pull from", "DENIED: no \\u001b[31mway", "config.json"}},
		{"404", []fault{{Path: manifests, Status: 404, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`}}, 0,
			[]string{"not found", "MANIFEST_UNKNOWN"}},
		{"429 for ever", []fault{{Path: manifests, Status: 429}}, 0, []string{"429", "log in"}},
		{"corrupt layer", []fault{{Path: blobs, Skip: 1, Corrupt: true}}, 0, []string{"corrupt", "digest mismatch", "wanted sha256:", "got sha256:"}},
		{"corrupt config", []fault{{Path: blobs, Corrupt: true}}, 0, []string{"resolve", "digest mismatch"}},
		{"short layer", []fault{{Path: blobs, Skip: 1, Short: 1000}}, 0, []string{"wrong size", "got 1000 bytes"}},
		{"truncated layer", []fault{{Path: blobs, Skip: 1, Truncate: 1000}}, 0, []string{"unexpected EOF"}},
		{"schema 1", []fault{{Path: manifests, Status: 200, Body: `{"schemaVersion":1,"fsLayers":[]}`,
			Header: http.Header{"Content-Type": {"application/vnd.docker.distribution.manifest.v1+prettyjws"}}}}, 0, []string{"schema 1", "not supported"}},
		{"endless manifest", []fault{{Path: manifests, Status: 200, Body: strings.Repeat(" ", 5<<20)}}, 0, []string{"more than 4194304 bytes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := registrytest.StartProxy(t, back.URL, nil, test.faults...)
			c := newClient(t, registry.Config{Registry: request.Registry{PullRetry: test.retry}})
			st := newStore(t)
			img, err := c.Resolve(context.Background(), front.Addr+"/base:1", amd64)
			if err == nil {
				err = pullAll(t, c, img, st)
			}
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range img.Layers {
					if !st.Has(l.Digest) {
						t.Errorf("layer %s is missing", l.Digest)
					}
				}
				return
			}
			wantError(t, err, request.ClassResolve, append(test.want, front.Addr)...)
			if len(layersOf(t, image)) == 0 || st.Has(layersOf(t, image)[0].Digest) {
				t.Error("a bad layer is in the store")
			}
		})
	}
}

// TestResume sees that a broken download goes on where it was.
func TestResume(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	seed(t, back.Addr+"/base:1", randomImage(t, 3<<20, 1))
	// Far more often than there are tries, but with progress in between.
	front := registrytest.StartProxy(t, back.URL, nil, fault{Path: blobs, Skip: 1, Truncate: 1 << 20})
	c := newClient(t, registry.Config{})
	img, err := c.Resolve(context.Background(), front.Addr+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	err = c.Pull(context.Background(), img, img.Layers[0], newStore(t), func(done int64) {
		if done < last {
			t.Errorf("progress went from %d to %d", last, done)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != img.Layers[0].Size {
		t.Errorf("progress ended at %d of %d", last, img.Layers[0].Size)
	}
	seen := front.Seen("GET", img.Layers[0].Digest.String())
	if len(seen) != 4 || seen[3].Range != "bytes=3145728-" {
		t.Errorf("requests: %+v", seen)
	}
}

// TestPushThroughFaults pushes to a registry that fails and gets well, or does
// not.
func TestPushThroughFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults []fault
		retry  int
		want   []string // nil: it succeeds
	}{
		{"healthy", nil, 0, nil},
		{"500 twice for all", []fault{{Method: "POST", Status: 500, Times: 2}, {Method: "HEAD", Status: 502, Times: 1}, {Method: "PUT", Path: uploads, Status: 500, Times: 2}, {Method: "PUT", Path: manifests, Status: 503, Times: 2}}, 4, nil},
		{"500 twice for uploads", []fault{{Method: "PUT", Path: uploads, Status: 500, Times: 2}}, 0, nil},
		{"500 twice for the manifest", []fault{{Method: "PUT", Path: manifests, Status: 500, Times: 2}}, 0, nil},
		{"reset while uploading", []fault{{Method: "PUT", Path: uploads, Reset: true, Times: 2}}, 0, nil},
		{"HEAD refused", []fault{{Method: "HEAD", Status: 403}}, 0, nil},

		{"500 for ever", []fault{{Method: "PUT", Path: manifests, Status: 500}}, 0, []string{"answers 500"}},
		{"403", []fault{{Method: "POST", Status: 403, Body: `{"errors":[{"code":"DENIED","message":"read only token"}]}`}}, 0,
			[]string{"an anonymous client may not push to", "DENIED: read only token"}},
		{"401", []fault{{Method: "POST", Status: 401}}, 0, []string{"wants a credential"}},
		{"immutable tag", []fault{{Method: "PUT", Path: manifests, Status: 400, Body: `{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}`}}, 0,
			[]string{"400", "the tag is immutable"}},
		{"another digest", []fault{{Method: "PUT", Path: manifests, Status: 201, Header: http.Header{"Docker-Content-Digest": {"sha256:" + strings.Repeat("a", 64)}}}}, 0,
			[]string{"stored another manifest"}},
		{"upload to another protocol", []fault{{Method: "POST", Status: 202, Header: http.Header{"Location": {"ftp://x/"}}}}, 0, []string{`unsupported protocol scheme "ftp"`}},
		{"upload to nowhere", []fault{{Method: "POST", Status: 202}}, 0, []string{"where the upload goes on"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			back := registrytest.Start(t, registrytest.Options{})
			front := registrytest.StartProxy(t, back.URL, nil, test.faults...)
			c := newClient(t, registry.Config{Registry: request.Registry{PushRetry: test.retry}})
			st := newStore(t)
			image := randomImage(t, 300_000, 2)
			desc := keep(t, st, image, true)
			dest := front.Addr + "/out:1"
			err := c.Push(context.Background(), st, desc, dest, func(done, total int64) {
				if done > total || done < 0 {
					t.Errorf("progress %d of %d", done, total)
				}
			})
			ref, _ := name.ParseReference(back.Addr + "/out:1")
			got, rerr := remote.Image(ref)
			if test.want != nil {
				wantError(t, err, request.ClassPush, append(test.want, "push "+dest)...)
				if rerr == nil {
					t.Error("the image is in the registry all the same")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if rerr != nil {
				t.Fatal(rerr)
			}
			if err := validate.Image(got); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDelays sees that the waits grow and that the registry's wish counts.
func TestDelays(t *testing.T) {
	front := registrytest.StartProxy(t, "", nil,
		fault{Path: manifests, Status: 500, Times: 2},
		fault{Path: manifests, Status: 429, Header: http.Header{"Retry-After": {"17"}}, Times: 1},
		fault{Path: manifests, Status: 429, Header: http.Header{"Retry-After": {"100000"}}, Times: 1},
		fault{Path: manifests, Status: 404}, fault{Path: "/v2/", Status: 200})
	c := newClient(t, registry.Config{Registry: request.Registry{PullRetry: 9}})
	var got []time.Duration
	registry.Delays(c, &got)
	_, err := c.Resolve(context.Background(), front.Addr+"/x", amd64)
	wantError(t, err, request.ClassResolve, "not found")
	within := func(d, want time.Duration) bool { return d >= want && d <= want*5/4 }
	if len(got) != 4 || !within(got[0], time.Second/2) || !within(got[1], time.Second) ||
		got[2] != 17*time.Second || got[3] != time.Minute {
		t.Errorf("waited %v", got)
	}
}

func TestRefusedDestination(t *testing.T) {
	readonly := registrytest.Start(t, registrytest.Options{ReadOnly: true})
	auth := registrytest.Start(t, registrytest.Options{Auth: true})
	for _, test := range []struct {
		name, dest string
		keys       logins
		want       []string
	}{
		{"anonymous", auth.Addr + "/a:1", nil, []string{"push to " + auth.Addr + "/a", "wants a credential"}},
		{"wrong password", auth.Addr + "/a:1", logins{auth.Addr: authn.AuthConfig{Username: "eve", Password: "x"}}, []string{"refuses the credential of user eve"}},
		{"another host's credential", auth.Addr + "/a:1", logins{"127.0.0.1": login()}, []string{"there is none"}},
		{"read only", readonly.Addr + "/a:1", nil, []string{"takes no pushes"}},
		{"digest", auth.Addr + "/a@sha256:" + strings.Repeat("0", 64), nil, []string{"digest", "tag"}},
		{"no reference", "UPPER/\x1b[case", nil, []string{"no image reference"}},
		{"nobody there", "127.0.0.1:1/a", nil, []string{"connection refused", "127.0.0.1:1"}},
		{"no such host", "registry.invalid/a", nil, []string{"registry.invalid"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, registry.Config{Keychain: test.keys})
			wantError(t, c.CheckPush(context.Background(), test.dest), request.ClassPush, test.want...)
		})
	}
}

// A proxy that cannot be reached is no fault of the registry.
func TestDeadProxy(t *testing.T) {
	for proxy, want := range map[string]string{
		"http://user:" + registrytest.Password + "@127.0.0.1:1": "connection refused by 127.0.0.1:1, the proxy of",
		"http://proxy.invalid:3128":                             "cannot resolve the name of proxy.invalid:3128, the proxy of",
	} {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, registry.Config{Proxy: http.ProxyURL(u)})
		_, err = c.Resolve(context.Background(), "reg.example/a:1", amd64)
		e := wantError(t, err, request.ClassResolve, want, "HTTP_PROXY or HTTPS_PROXY")
		if strings.Contains(e.Msg+e.Hint, "registry running") {
			t.Errorf("the registry is blamed: %s, %s", e.Msg, e.Hint)
		}
	}
}

func TestCheckPushLeavesNothing(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	front := registrytest.StartProxy(t, back.URL, nil)
	c := newClient(t, registry.Config{})
	for _, dest := range []string{"/a:1", "/a:2"} {
		if err := c.CheckPush(context.Background(), front.Addr+dest); err != nil {
			t.Fatal(err)
		}
	}
	if begun, canceled := len(front.Seen("POST", uploads)), len(front.Seen("DELETE", uploads)); begun != 1 || canceled != 1 {
		t.Errorf("%d uploads begun, %d canceled", begun, canceled)
	}
	if s := front.Seen("", ""); s[len(s)-1].UserAgent != "kbuild-sandbox/test" {
		t.Errorf("user agent %q", s[len(s)-1].UserAgent)
	}
}

func TestCancel(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	seed(t, back.Addr+"/base:1", randomImage(t, 1000, 1))
	front := registrytest.StartProxy(t, back.URL, nil, fault{Path: manifests, Delay: time.Hour})
	c := newClient(t, registry.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	start := time.Now()
	_, err := c.Resolve(ctx, front.Addr+"/base:1", amd64)
	if !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	wantError(t, err, request.ClassCanceled)
}

func TestFullDisk(t *testing.T) {
	e := registry.Explained(syscall.ENOSPC)
	wantError(t, e, request.ClassResource, "no space left", "--work-dir")
}

// TestStall has a registry stop in the middle of a blob, both ways.
func TestStall(t *testing.T) {
	back := registrytest.Start(t, registrytest.Options{})
	image := randomImage(t, 1<<20, 1)
	seed(t, back.Addr+"/base:1", image)
	front := registrytest.StartProxy(t, back.URL, nil,
		fault{Method: "GET", Path: blobs, Skip: 1, Delay: time.Hour, Times: 1},
		fault{Method: "GET", Path: blobs, Skip: 1, Hang: 500_000, Times: 1})
	c := newClient(t, registry.Config{})
	registry.Stall(c, 200*time.Millisecond)
	img, err := c.Resolve(context.Background(), front.Addr+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if err := pullAll(t, c, img, newStore(t)); err != nil {
		t.Fatal(err)
	}
	front.Fail(fault{Method: "GET", Path: blobs, Delay: time.Hour})
	wantError(t, pullAll(t, c, img, newStore(t)), request.ClassResolve, "stood still for 200ms")
	// An upload that the other side does not read.
	st := newStore(t)
	desc := keep(t, st, randomImage(t, 32<<20, 1), true)
	front.Fail(fault{Method: "PUT", Path: uploads, Delay: time.Hour})
	wantError(t, c.Push(context.Background(), st, desc, front.Addr+"/out", nil), request.ClassPush, "stood still")
}
