package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
	"golang.org/x/sys/unix"
)

// statement is one in form; name makes it longer.
func statement(name string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1",`+
		`"subject":[{"name":%q,"digest":{"sha256":"%064x"}}],"predicate":{}}`, name, 7)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sealKey is what cosign generate-key-pair writes.
func sealKey(der []byte, password string) []byte {
	var s sealed
	s.KDF.Name, s.Cipher.Name = "scrypt", "nacl/secretbox"
	s.KDF.Params.N, s.KDF.Params.R, s.KDF.Params.P = 1024, 8, 1
	s.KDF.Salt, s.Cipher.Nonce = []byte("salt"), bytes.Repeat([]byte{9}, 24)
	derived := must(scrypt.Key([]byte(password), s.KDF.Salt, 1024, 8, 1, 32))
	s.Ciphertext = secretbox.Seal(nil, der, (*[24]byte)(s.Cipher.Nonce), (*[32]byte)(derived))
	return must(json.Marshal(s))
}

// verify checks an envelope with the standard library.
func verify(t *testing.T, public, sealed, payload []byte) {
	t.Helper()
	var e struct {
		PayloadType, Payload string
		Signatures           []struct{ Sig string }
	}
	if err := json.Unmarshal(sealed, &e); err != nil {
		t.Fatal(err)
	}
	if got := must(base64.StdEncoding.DecodeString(e.Payload)); !bytes.Equal(got, payload) || e.PayloadType != "application/vnd.in-toto+json" {
		t.Fatalf("payload %q of type %q", got, e.PayloadType)
	}
	block, _ := pem.Decode(public)
	message := fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d %s", len(payload), payload)
	sig := must(base64.StdEncoding.DecodeString(e.Signatures[0].Sig))
	ok := false
	switch k := must(x509.ParsePKIXPublicKey(block.Bytes)).(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		ok = ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, sig)
	}
	if !ok || len(e.Signatures) != 1 {
		t.Errorf("the signature does not verify: %s", sealed)
	}
}

func TestKeys(t *testing.T) {
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, edDER := must(x509.MarshalPKCS8PrivateKey(ec)), must(x509.MarshalPKCS8PrivateKey(ed))
	large := must(x509.MarshalPKCS8PrivateKey(must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))))
	greedy := bytes.Replace(sealKey(ecDER, "pw"), []byte(`"N":1024`), []byte(`"N":1073741824`), 1)
	for name, c := range map[string]struct {
		file []byte
		want string // of the error
	}{
		"PKCS #8, P-256":          {pemOf("PRIVATE KEY", ecDER), ""},
		"PKCS #8, Ed25519":        {pemOf("PRIVATE KEY", edDER), ""},
		"SEC 1":                   {pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))), ""},
		"with parameters":         {append(pemOf("EC PARAMETERS", []byte{6, 0}), pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec)))...), ""},
		"sigstore's":              {pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", sealKey(ecDER, "pw")), ""},
		"cosign's of old":         {pemOf("ENCRYPTED COSIGN PRIVATE KEY", sealKey(edDER, "pw")), ""},
		"another password":        {pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", sealKey(ecDER, "other")), ErrPassword.Error()},
		"memory without bound":    {pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", greedy), "malformed encrypted key"},
		"another curve":           {pemOf("PRIVATE KEY", large), "not supported: want ECDSA P-256 or Ed25519"},
		"a public key":            {pemOf("PUBLIC KEY", nil), `keys of type "PUBLIC KEY" are not supported`},
		"no PEM":                  {ecDER, "not in PEM"},
		"malformed":               {pemOf("PRIVATE KEY", ecDER[:20]), "malformed key"},
		"openssl's encryption":    {pemOf("ENCRYPTED PRIVATE KEY", ecDER), "decrypt it"},
		"malformed encrypted key": {pemOf("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{")), "malformed encrypted key"},
	} {
		k, err := ParseKey(c.file, func() ([]byte, error) { return []byte("pw"), nil })
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		payload := statement(name)
		verify(t, must(k.Public()), must(k.seal(payload)), payload)
	}
}

// TestOnlyStatements: nothing but a statement of provenance is signed.
func TestOnlyStatements(t *testing.T) {
	k := Key{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	good := string(statement("x"))
	for _, bad := range []string{
		"", "{}", "[]", "hello",
		strings.Replace(good, "Statement/v1", "Statement/v9", 1),
		strings.Replace(good, "slsa.dev/provenance/v1", "spdx.dev/Document", 1),
		strings.Replace(good, "sha256", "sha512", 1),
		strings.Replace(good, "0007", "000X", 1),
		strings.Replace(good, `"subject":[`, `"subject":[],"other":[`, 1),
	} {
		if _, err := k.seal([]byte(bad)); err == nil {
			t.Errorf("signed: %s", bad)
		}
	}
}

// TestMain is the signer, too, for the test below.
func TestMain(m *testing.M) {
	if os.Getenv("KBUILD_TEST_SIGNER") == "" {
		os.Exit(m.Run())
	}
	key := func() (Key, error) {
		raw, err := os.ReadFile(os.Getenv("KBUILD_TEST_SIGNER"))
		if err != nil {
			return Key{}, err
		}
		return ParseKey(raw, nil)
	}
	confined := func() error {
		if err := Confine(); err != nil {
			return err
		}
		return escapes()
	}
	in := io.TeeReader(os.Stdin, collector{})
	if err := Serve(in, os.Stdout, key, confined); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// collector makes Go's runtime work beside the signing.
type collector struct{}

func (collector) Write(p []byte) (int, error) {
	done := make(chan bool)
	for range 8 {
		go func() { runtime.GC(); done <- true }()
	}
	for range 8 {
		<-done
	}
	return len(p), nil
}

// escapes tells what a confined signer still can do and must not.
func escapes() error {
	var can []error
	for name, try := range map[string]func() error{
		"open a file": func() error { _, err := os.Open("/etc/passwd"); return err },
		"dial":        func() error { _, err := net.Dial("tcp", "127.0.0.1:9"); return err },
		"execute":     func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
		"fork": func() error {
			_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
			if errno == 0 {
				return nil
			}
			return errno
		},
		"kill its parent": func() error { return unix.Kill(os.Getppid(), 0) },
		"trace":           func() error { return unix.PtraceAttach(os.Getppid()) },
	} {
		if err := try(); !errors.Is(err, unix.EPERM) {
			can = append(can, fmt.Errorf("it can %s: %v", name, err))
		}
	}
	return errors.Join(can...)
}

// TestSigner is a whole signer in a process of its own, confined.
func TestSigner(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the signer is not root
		t.Fatal(err)
	}
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	if err := os.WriteFile(file, pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))), 0o644); err != nil {
		t.Fatal(err)
	}
	s, cmd := startSigner(t, file)
	for i := range 50 {
		payload := statement(strings.Repeat("x", 10000*i))
		sealed, err := s.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, s.Public(), sealed, payload)
	}
	if _, err := s.Sign([]byte(`{"_type":"evil"}`)); err == nil || !strings.Contains(err.Error(), "not a statement") {
		t.Errorf("another document: %v", err)
	}
	if _, err := s.Sign(append(statement("x"), '\n')); err == nil {
		t.Error("two lines were signed")
	}
	if _, err := s.Sign(statement(strings.Repeat("x", MaxStatement))); err == nil {
		t.Error("a statement that is too large was signed")
	}
	checkConfined(t, cmd)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the signer ended with %v", err)
	}
}

// checkConfined looks at a signer from outside.
func checkConfined(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	status := must(os.ReadFile(proc + "status"))
	for _, want := range []string{"\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n"} {
		if !bytes.Contains(status, []byte(want)) {
			t.Errorf("its status has no %q", want)
		}
	}
	// The files of a process that cannot be dumped are root's, whoever it is.
	info := must(os.Stat(proc + "environ"))
	if st := info.Sys().(*syscall.Stat_t); st.Uid == uint32(signerID()) {
		t.Error("its environment can be read by others of its user")
	}
}

// signerID is the user of the signer of tests: never root.
func signerID() int {
	if os.Getuid() == 0 {
		return 65534
	}
	return os.Getuid()
}

// TestSignerWithoutKey: what is wrong with the key is told at once.
func TestSignerWithoutKey(t *testing.T) {
	var out bytes.Buffer
	err := Serve(strings.NewReader(""), &out, func() (Key, error) { return Key{}, ErrPassword }, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(nopCloser{}, &out); err == nil || err.Error() != ErrPassword.Error() {
		t.Errorf("%v", err)
	}
	out.Reset()
	err = Serve(strings.NewReader(string(statement("x"))+"\n"), &out,
		func() (Key, error) { return Key{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}, nil },
		func() error { return errors.New("no filter") })
	if err != nil || !strings.Contains(out.String(), "confine the signer: no filter") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("unconfined: %v, %s", err, out.String())
	}
	if _, err := Dial(nopCloser{}, strings.NewReader("")); err == nil {
		t.Error("a signer that is not there was found")
	}
}

type nopCloser struct{}

func (nopCloser) Write(p []byte) (int, error) { return len(p), nil }
func (nopCloser) Close() error                { return nil }

func startSigner(t *testing.T, key string) (*Signer, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	if os.Getuid() == 0 {
		id := uint32(signerID())
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	cmd.Env = []string{"KBUILD_TEST_SIGNER=" + key}
	cmd.Stderr = os.Stderr
	in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s, err := Dial(in, out)
	if err != nil {
		t.Fatal(err)
	}
	return s, cmd
}
