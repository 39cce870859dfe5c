package buildcontext

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// HeaderSecret returns a secret that is a header's value, or a part of it, ok is
// false if there is none of that id. A line feed at the end, which a file has, is
// taken off. Errors do not show the secret.
func (c HTTPConfig) HeaderSecret(ctx context.Context, id string) (value string, ok bool, err error) {
	if c.Secret == nil {
		return "", false, nil
	}
	data, ok, err := c.Secret(ctx, id)
	if err != nil || !ok {
		return "", false, err
	}
	value = strings.TrimRight(string(data), "\r\n")
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "", false, fmt.Errorf("secret %s has control characters: it is no header", id)
	}
	return value, true, nil
}

// authorization is the Authorization header for a URL, from the secrets whose
// ids end in its host: as BuildKit has it, a token goes before a whole header.
func (c HTTPConfig) authorization(ctx context.Context, u *url.URL) (string, error) {
	token, ok, err := c.HeaderSecret(ctx, "HTTP_AUTH_TOKEN_"+u.Hostname())
	if err != nil {
		return "", err
	}
	if ok {
		return "Bearer " + token, nil
	}
	header, _, err := c.HeaderSecret(ctx, "HTTP_AUTH_HEADER_"+u.Hostname())
	return header, err
}
