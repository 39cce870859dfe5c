package canary

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Canary is a credential that exists once. Its value is made of letters and
// digits only: what escapes for URLs, JSON, shells or XML leaves it as it is.
type Canary struct {
	Name  string
	User  string // that it is the password of; empty: none
	Value string
}

// NewCanary makes a canary.
func NewCanary(name, user string) Canary {
	return Canary{Name: name, User: user, Value: rand.Text()}
}

// Forms are the ways in which a canary may be written, by name.
func (c Canary) Forms() map[string][]byte {
	v := []byte(c.Value)
	sum := sha256.Sum256(v)
	forms := map[string][]byte{
		"as it is":         v,
		"its first half":   v[:len(v)/2],
		"its second half":  v[len(v)/2:],
		"backwards":        reversed(v),
		"UTF-16":           spread(v, 1),
		"UTF-32":           spread(v, 3),
		"in small letters": []byte(strings.ToLower(c.Value)),
		"hex":              []byte(hex.EncodeToString(v)),
		"HEX":              []byte(strings.ToUpper(hex.EncodeToString(v))),
		"hex with blanks":  fmt.Appendf(nil, "% x", v),
		"% escapes":        []byte("%" + strings.ReplaceAll(fmt.Sprintf("% X", v), " ", "%")),
		"base32":           []byte(strings.TrimRight(base32.StdEncoding.EncodeToString(v), "=")),
		"SHA-256":          sum[:],
		"SHA-256 in hex":   []byte(hex.EncodeToString(sum[:])),
	}
	for shift := range 3 {
		forms[fmt.Sprintf("base64 (%d)", shift)] = inBase64(v, shift)
		forms[fmt.Sprintf("base64 backwards (%d)", shift)] = reversed(inBase64(v, shift))
	}
	if c.User != "" {
		login := []byte(c.User + ":" + c.Value)
		forms["base64 of the login"] = inBase64(login, 0)
		forms["base64 of base64 of the login"] = inBase64([]byte(base64.StdEncoding.EncodeToString(login)), 0)
		sum := sha256.Sum256(login)
		forms["SHA-256 of the login"] = sum[:]
		forms["SHA-256 of the login in hex"] = []byte(hex.EncodeToString(sum[:]))
	}
	return forms
}

// inBase64 is what in base64 does not depend on v's neighbours, where v begins
// shift bytes behind a group of three. Both alphabets write letters and digits
// the same.
func inBase64(v []byte, shift int) []byte {
	padded := append(make([]byte, shift), v...)
	text := base64.RawStdEncoding.EncodeToString(padded)
	from := (shift*8 + 5) / 6
	return []byte(text[from : len(padded)*8/6])
}

func reversed(v []byte) []byte {
	r := slices.Clone(v)
	slices.Reverse(r)
	return r
}

// spread puts n zero bytes between the bytes of v.
func spread(v []byte, n int) []byte {
	var out []byte
	for _, c := range v {
		out = append(append(out, c), make([]byte, n)...)
	}
	return out[:len(out)-n]
}
