package flags

import (
	"encoding/csv"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Attest holds the flags about provenance. Only the launcher has them: it
// stands outside of the sandbox that it tells about, which nobody does in a pod.
type Attest struct {
	given      []string // --attest
	provenance string   // --provenance, docker's short form
	sbom       string
	file       string
	key        string
	builder    string

	wanted   Attestation
	attaches string // the flag that asks for it, with its dashes
}

// Attestation is what is wanted of it.
type Attestation struct {
	// Attach puts the provenance into the image's index, as BuildKit does.
	Attach bool
	// Max: with values of build arguments and labels, and names of secrets.
	Max     bool
	Builder string // id; empty: nobody says
	Key     string // file of the key that signs, or empty
	File    string // as given: where the provenance goes, or empty; see Outputs
}

// Wanted says whether provenance is wanted at all.
func (a Attestation) Wanted() bool { return a.Attach || a.Key != "" || a.File != "" }

// RegisterAttest adds the flags to fs. Call it before Register, which refuses
// them by name where they are not there, and give the result to Attests.
func RegisterAttest(fs *pflag.FlagSet) *Attest {
	a := &Attest{}
	fs.Var(attestValue{listValue{&a.given}}, "attest", "attach provenance to the image, as docker buildx does: type=provenance[,mode=min|max][,builder-id=URI]; the image becomes an index")
	fs.StringVar(&a.provenance, "provenance", "", "short for --attest type=provenance: `true`, false, mode=min or mode=max")
	fs.StringVar(&a.sbom, "sbom", "", "")
	fs.Lookup("sbom").Hidden = true
	fs.StringVar(&a.file, "provenance-file", "", "write the provenance to this `file`, a line of JSON for each platform: a statement, or with --sign-key a signed envelope")
	fs.StringVar(&a.key, "sign-key", "", "sign the provenance with the private key in this `file` (PEM: ECDSA P-256 or Ed25519, or cosign's with COSIGN_PASSWORD) and push it for cosign verify-attestation")
	fs.StringVar(&a.builder, "builder-id", "", "`URI` that names who builds, in the provenance")
	group(fs, groupResult, "attest", "provenance", "provenance-file", "sign-key", "builder-id")
	return a
}

// attestValue has a short name in the help.
type attestValue struct{ listValue }

func (attestValue) Type() string { return "attributes" }

// Attests makes a a part of b.
func (b *Build) Attests(a *Attest) { b.attest = a }

// Attestation is what is wanted, after Request.
func (b *Build) Attestation() Attestation { return b.attest.wanted }

const (
	attestHint = "for example --attest type=provenance,mode=max"
	noSBOM     = "no software bill of materials is made"
)

// attestation settles what is attested. It comes before what asks whether there
// is an index.
func (b *Build) attestation(r *request.Build, from From) error {
	if b.attest == nil || r.Call != "" {
		return nil
	}
	a := b.attest
	w := Attestation{Builder: a.builder, File: a.file}
	if err := a.types(&w); err != nil {
		return err
	}
	var err error
	if w.Key, err = a.keyFile(from); err != nil {
		return err
	}
	if err := w.fits(r, a.attaches); err != nil {
		return err
	}
	if w.Attach {
		// As BuildKit: only OCI's formats have a place for it, in an index.
		r.Index, r.Format = true, "oci"
	}
	a.wanted = w
	b.result.files.Provenance = a.file
	return nil
}

// fits refuses what there is no place for; flag is the one that attaches.
func (w Attestation) fits(r *request.Build, flag string) error {
	switch pushes := !r.NoPush && len(r.Destinations) > 0; {
	case w.Attach && r.Format == "docker":
		return usagef("use --image-format=oci", "%s cannot be used with --image-format=docker: Docker's format has no place for provenance", flag)
	case w.Attach && r.Tar:
		return usagef("use --oci-layout-path, or --provenance-file instead of "+flag, "%s cannot be used with --tar-path: a docker-save tar has no place for provenance", flag)
	case w.Key != "" && !pushes && w.File == "":
		return usagef("name a file with --provenance-file", "--sign-key: nothing is pushed, and there is no file for the signed provenance")
	case w.Builder != "" && !w.Wanted():
		return usagef("add --attest type=provenance or --provenance-file", "--builder-id: no provenance is wanted")
	case w.Builder != "" && (!strings.Contains(w.Builder, ":") || strings.ContainsFunc(w.Builder, func(c rune) bool { return c <= ' ' || c > '~' })):
		return usagef("for example https://ci.example.com/runners", "--builder-id: %q is no URI", w.Builder)
	}
	return nil
}

// keyFile is the file of --sign-key.
func (a *Attest) keyFile(from From) (string, error) {
	if a.key == "" {
		return "", nil
	}
	if scheme, _, ok := strings.Cut(a.key, "://"); ok {
		return "", usagef("name a file in PEM", "--sign-key: keys of %s:// are not supported", scheme)
	}
	path := absolute(from.Dir, a.key)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", inputf("", "--sign-key: %s", err)
	case info.IsDir():
		return "", inputf("", "--sign-key: %s: is a directory", path)
	}
	return path, nil
}

// written is one attestation, with the flag that it stands behind.
type written struct{ flag, text string }

// types takes --attest, --provenance and --sbom, each type once.
func (a *Attest) types(w *Attestation) error {
	var given []written
	for _, text := range a.given {
		given = append(given, written{"--attest", text})
	}
	for _, short := range []struct{ kind, value string }{{"provenance", a.provenance}, {"sbom", a.sbom}} {
		if short.value == "" {
			continue
		}
		attrs := "type=" + short.kind + "," + short.value
		if on, err := strconv.ParseBool(short.value); err == nil {
			attrs = "type=" + short.kind + ",disabled=" + strconv.FormatBool(!on)
		}
		given = append(given, written{"--" + short.kind, attrs})
	}
	seen := map[string]bool{}
	for _, g := range given {
		t, err := g.parse()
		if err != nil {
			return err
		}
		if seen[t.kind] {
			return usagef("", "%s: type=%s is given twice", g.flag, t.kind)
		}
		seen[t.kind] = true
		if t.disabled || t.kind == "" {
			continue
		}
		if t.kind == "sbom" {
			return usagef(noSBOM, "%s: type=sbom: not supported", g.flag)
		}
		w.Attach, w.Max, a.attaches = true, t.max, g.flag
		if t.builder != "" {
			w.Builder = t.builder
		}
	}
	return nil
}

// hint is how the flag is written.
func (g written) hint(field string) string {
	switch {
	case g.flag == "--attest":
		return attestHint
	case field == "min", field == "max":
		return "write --provenance=mode=" + field
	}
	return "for example " + g.flag + "=false"
}

// attested is one --attest.
type attested struct {
	kind     string
	disabled bool
	max      bool
	builder  string
}

func (g written) parse() (attested, error) {
	t := attested{max: true} // as BuildKit, where it is asked for
	if g.text == "" {        // an unset variable of a CI job
		return t, nil
	}
	fields, err := csv.NewReader(strings.NewReader(g.text)).Read()
	if err != nil {
		return t, usagef(g.hint(""), "%s: %q: want type=TYPE[,KEY=VALUE...]", g.flag, g.text)
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return t, usagef(g.hint(f), "%s: %q: want KEY=VALUE", g.flag, f)
		}
		if err := t.set(strings.ToLower(strings.TrimSpace(key)), value); err != nil {
			return t, usagef(g.hint(""), "%s: %s=%s: %s", g.flag, key, value, err)
		}
	}
	switch t.kind {
	case "provenance", "sbom":
		return t, nil
	case "":
		return t, usagef(attestHint, "%s: %q: type is missing", g.flag, g.text)
	}
	return t, usagef(attestHint, "%s: type=%s: unknown: want provenance", g.flag, t.kind)
}

// set takes one attribute; what is left of them are those of BuildKit's
// provenance that say what is done anyway.
func (t *attested) set(key, value string) error {
	var err error
	switch key {
	case "type":
		t.kind = value
	case "disabled":
		t.disabled, err = parseBool(value)
	case "mode":
		switch value {
		case "min", "max":
			t.max = value == "max"
		default:
			return errors.New("want min or max")
		}
	case "builder-id":
		t.builder = value
	case "version":
		if value != "v1" {
			return errors.New("not supported: want v1")
		}
	case "inline-only": // there is no other way to attach it here
		_, err = parseBool(value)
	case "reproducible":
		if v, e := parseBool(value); e != nil || v {
			return errors.New("not supported: nobody here can know it; build twice and compare the digests")
		}
	case "filename":
		return errors.New("not supported: use --provenance-file")
	case "generator":
		if t.kind == "sbom" {
			return nil
		}
		fallthrough
	default:
		return errors.New("unknown attribute")
	}
	return err
}

func parseBool(value string) (bool, error) {
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return v, nil
}
