package token

import (
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Claim returns the claim at a dotted path. At each level a member whose name
// is all of the path that is left goes first, then shorter and shorter
// beginnings of it, so that names that hold dots, such as URLs, are found too.
func Claim(claims jose.Object, path string) (jose.Value, bool) {
	if value, ok := claims.Get(path); ok {
		return value, true
	}
	for end := strings.LastIndexByte(path, '.'); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		value, ok := claims.Get(path[:end])
		if !ok {
			continue
		}
		if inner, ok := value.Object(); ok {
			if value, ok := Claim(inner, path[end+1:]); ok {
				return value, true
			}
		}
	}
	return "", false
}

// Subject returns who the token speaks for: sub, else client_id. A sub that is
// no plain value is nobody, and not the client.
func Subject(claims jose.Object) string {
	for _, name := range []string{"sub", "client_id"} {
		if value, ok := claims.Get(name); ok && !value.IsNull() && string(value) != `""` {
			text, _ := value.Scalar()
			return text
		}
	}
	return ""
}

// ClientID returns the client that the token was issued to: client_id
// (RFC 9068 §2.2), else azp, which some servers have instead.
func ClientID(claims jose.Object) string {
	for _, name := range []string{"client_id", "azp"} {
		value, _ := claims.Get(name)
		if text, ok := value.Text(); ok && text != "" {
			return text
		}
	}
	return ""
}
