package escape

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// Site is what all attacks share.
type Site struct {
	Bin      string // the product's binaries
	Dir      string // where attacks have their directories; others may enter it
	Registry string // host:port in the world, plain HTTP, wants Login
	Busybox  string // the base image there
	Probe    string // the helper program, static
	Login    authn.Basic
	World    *World
	Canaries *Canaries
	Web      *Web
	Names    *Names
	// Word is in every canary file of the host, and in nothing that a build is
	// given.
	Word string
	// Update writes golden files anew.
	Update bool
	// User is the user id that builds are run as.
	User int

	steps *stepsResult // of the build of all steps, if there was one

	postures  sync.Mutex
	postureOf map[string]string // digests, by the form of a build
}

// NewSite makes the world and everything in it. The process must be Inside.
func NewSite(t testing.TB, bin string, user int) *Site {
	t.Helper()
	s := &Site{Bin: bin, User: user, Word: "kbuild-canary-" + random(), Login: authn.Basic{Username: "builder", Password: "pw-" + random()}}
	dir, err := os.MkdirTemp("", "kbe-") // short: paths of sockets below it are limited
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	s.Dir = dir
	s.World, err = newWorld()
	must(t, err)
	s.Canaries, s.Web, s.Names = serveCanaries(t, s.World), serveWeb(t, s.World), serveNames(t, s.World)
	s.startRegistry(t)
	s.buildProbe(t)
	busybox, err := rig.Busybox(t.Context())
	must(t, err)
	s.Busybox = s.Push(t, busybox, "library/busybox:1")
	must(t, rig.Adopt())
	return s
}

// startRegistry starts a registry at the runner's loopback, and the world's way
// to it.
func (s *Site) startRegistry(t testing.TB) {
	t.Helper()
	r := registrytest.Start(t, registrytest.Options{Auth: true, Password: s.Login.Password})
	l, err := s.World.Listen(PublicIPv4 + ":0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	s.Registry = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go forward(conn, r.Addr)
		}
	}()
}

func forward(conn net.Conn, to string) {
	defer conn.Close()
	back, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() {
		defer back.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(back, conn)
	}()
	_, _ = io.Copy(conn, back)
	back.Close()
}

func (s *Site) buildProbe(t testing.TB) {
	t.Helper()
	s.Probe = filepath.Join(s.Dir, "probe")
	cmd := exec.Command("go", "build", "-o", s.Probe, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Push puts an image into the registry as path:tag and returns its reference.
func (s *Site) Push(t testing.TB, img v1.Image, path string) string {
	t.Helper()
	ref, err := name.ParseReference(s.Registry+"/"+path, name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, img, remote.WithAuth(&s.Login), remote.WithContext(t.Context())))
	return ref.String()
}

// Has says whether the registry has an image.
func (s *Site) Has(t testing.TB, ref string) bool {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	must(t, err)
	_, err = remote.Head(r, remote.WithAuth(&s.Login), remote.WithContext(t.Context()))
	return err == nil
}

// dockerConfig is a config.json with the registry's credential and one for
// another host.
func (s *Site) dockerConfig() []byte {
	entry := func(user, password string) map[string]string {
		return map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	}
	b, err := json.Marshal(map[string]any{"auths": map[string]any{
		s.Registry:             entry(s.Login.Username, s.Login.Password),
		"registry.example.com": entry("other", s.Word),
	}})
	if err != nil {
		panic(err) // two maps of strings
	}
	return b
}

func random() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, file, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte(text), mode))
}
