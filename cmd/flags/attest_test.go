package flags

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// attesting parses a command line of the launcher, in a directory with a
// Dockerfile and key.pem.
func attesting(t *testing.T, line string) (Attestation, request.Build, Outputs, error) {
	t.Helper()
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch", "key.pem": ""})
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	a := RegisterAttest(fs)
	b := Register(fs)
	b.Attests(a)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		return Attestation{}, request.Build{}, Outputs{}, ParseError(fs, err)
	}
	r, out, err := b.Request(From{Args: fs.Args(), Dir: dir, Context: ".", Env: func(string) (string, bool) { return "", false }})
	got := b.Attestation()
	got.Key = strings.TrimPrefix(got.Key, dir+"/")
	out.Provenance = strings.TrimPrefix(out.Provenance, dir+"/")
	return got, r, out, err
}

func TestAttest(t *testing.T) {
	for line, want := range map[string]Attestation{
		"-d a":                                   {},
		"-d a --attest=":                         {},
		"-d a --attest type=provenance":          {Attach: true, Max: true},
		"-d a --attest type=provenance,mode=min": {Attach: true},
		"-d a --attest type=provenance,mode=max,builder-id=https://b":         {Attach: true, Max: true, Builder: "https://b"},
		"-d a --attest type=provenance,version=v1,inline-only=true":           {Attach: true, Max: true},
		"-d a --attest type=provenance,reproducible=false":                    {Attach: true, Max: true},
		"-d a --attest type=provenance,disabled=true":                         {},
		"-d a --attest type=provenance,disabled=true,mode=max":                {},
		"-d a --provenance=true":                                              {Attach: true, Max: true},
		"-d a --provenance true":                                              {Attach: true, Max: true},
		"-d a --provenance=mode=min":                                          {Attach: true},
		"-d a --provenance=false --sbom=false":                                {},
		"-d a --attest type=sbom,disabled=true --provenance=1":                {Attach: true, Max: true},
		"-d a --builder-id urn:x --provenance-file p.json":                    {Builder: "urn:x", File: "p.json"},
		"-d a --sign-key key.pem":                                             {Key: "key.pem"},
		"--no-push --sign-key key.pem --provenance-file p":                    {Key: "key.pem", File: "p"},
		"--no-push --tar-path x.tar --provenance-file p":                      {File: "p"},
		"-d a --attest type=provenance --image-format=oci --sign-key key.pem": {Attach: true, Max: true, Key: "key.pem"},
	} {
		got, r, out, err := attesting(t, line)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n-want +got:\n%s", line, err, diff)
		}
		// What attaches needs an index and OCI's formats; the rest changes no image.
		if r.Index != want.Attach || (r.Format == "oci") != want.Attach {
			t.Errorf("%s: index %v, format %q", line, r.Index, r.Format)
		}
		if out.Provenance != want.File {
			t.Errorf("%s: the file is %q", line, out.Provenance)
		}
	}
	_, r, _, err := attesting(t, "-d a --provenance=mode=max --annotation index:a=b --build-arg BUILDKIT_MULTI_PLATFORM=0")
	if err != nil || !r.Index || len(r.Annotations) != 1 {
		t.Errorf("annotation of an index: %v, %+v", err, r)
	}
}

func TestAttestErrors(t *testing.T) {
	for line, want := range map[string]string{
		"-d a --attest provenance":                            `--attest: "provenance": want KEY=VALUE`,
		"-d a --attest mode=max":                              `--attest: "mode=max": type is missing`,
		"-d a --attest type=vex":                              "--attest: type=vex: unknown: want provenance",
		"-d a --attest type=sbom":                             "--attest: type=sbom: not supported",
		"-d a --attest type=sbom,generator=x":                 "--attest: type=sbom: not supported",
		"-d a --sbom=true":                                    "--sbom: type=sbom: not supported",
		"-d a --sbom=generator=x":                             "--sbom: type=sbom: not supported",
		"-d a --attest type=provenance,mode=full":             "--attest: mode=full: want min or max",
		"-d a --attest type=provenance,version=v0.2":          "--attest: version=v0.2: not supported: want v1",
		"-d a --attest type=provenance,filename=x":            "--attest: filename=x: not supported: use --provenance-file",
		"-d a --attest type=provenance,reproducible=true":     "--attest: reproducible=true: not supported: nobody here can know it; build twice and compare the digests",
		"-d a --attest type=provenance,disabled=perhaps":      "--attest: disabled=perhaps: want true or false",
		"-d a --attest type=provenance,generator=x":           "--attest: generator=x: unknown attribute",
		"-d a --attest type=provenance --provenance=mode=max": "--provenance: type=provenance is given twice",
		"-d a --provenance=max":                               `--provenance: "max": want KEY=VALUE`,
		"-d a --provenance=true --tar-path x":                 "--provenance cannot be used with --tar-path: a docker-save tar has no place for provenance",
		"-d a --provenance=true --image-format=docker":        "--provenance cannot be used with --image-format=docker: Docker's format has no place for provenance",
		"-d a --attest type=provenance --image-format=docker": "--attest cannot be used with --image-format=docker: Docker's format has no place for provenance",
		"-d a --attest type=provenance --tar-path x":          "--attest cannot be used with --tar-path: a docker-save tar has no place for provenance",
		"-d a --builder-id https://b":                         "--builder-id: no provenance is wanted",
		"-d a --builder-id b --provenance-file p":             `--builder-id: "b" is no URI`,
		"--no-push --sign-key key.pem":                        "--sign-key: nothing is pushed, and there is no file for the signed provenance",
		"-d a --sign-key awskms:///alias/x":                   "--sign-key: keys of awskms:// are not supported",
		"-d a --provenance-file https://x/y":                  "--provenance-file: a URL: not supported yet",
	} {
		_, _, _, err := attesting(t, line)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	if _, _, _, err := attesting(t, "-d a --provenance=max"); err.(*Error).Hint != "write --provenance=mode=max" {
		t.Errorf("hint %q", err.(*Error).Hint)
	}
	for _, line := range []string{"-d a --sign-key nowhere.pem", "-d a --sign-key /"} {
		if _, _, _, err := attesting(t, line); err == nil || !strings.HasPrefix(err.Error(), "--sign-key: ") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestAttestInPod: where nobody stands outside, the flags are refused by name.
func TestAttestInPod(t *testing.T) {
	for _, line := range []string{"--attest type=provenance", "--provenance-file p", "--sign-key key.pem", "--builder-id urn:x"} {
		_, _, err := parse(t, t.TempDir(), nil, "-d a "+line)
		name, _, _ := strings.Cut(line, " ")
		if err == nil || err.Error() != name+": not supported" {
			t.Errorf("%s: %v", line, err)
		}
	}
}
