package proof

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
)

// URI is an http or https URI without query and fragment, normalised by the
// syntax and the scheme (RFC 3986 §6.2.2 and §6.2.3), so that two of them are
// equivalent just when they are equal. That is how htu and the request's URL
// are compared (RFC 9449 §4.3, check 9).
type URI struct {
	Scheme    string // http or https
	Authority string // host, and the port unless it is the scheme's own
	Path      string // begins with a slash
}

func (u URI) String() string { return u.Scheme + "://" + u.Authority + u.Path }

// isWritten reports whether a text is the URI just as it is written here, as most
// clients write it. It makes nothing of the text.
func (u *URI) isWritten(text string) bool {
	const between = "://"
	scheme, host := len(u.Scheme), len(u.Scheme)+len(between)
	path := host + len(u.Authority)
	return u.Path != "" && len(text) == path+len(u.Path) &&
		text[:scheme] == u.Scheme && text[scheme:host] == between && text[host:path] == u.Authority && text[path:] == u.Path
}

var (
	errScheme    = errors.New("not an absolute http or https URI")
	errAuthority = errors.New("the authority is not a host and an optional port")
	errPath      = errors.New("the path holds what no URI can")
)

// ParseURI parses and normalises an absolute URI. Query and fragment are
// dropped; user information is an error.
func ParseURI(uri string) (URI, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return URI{}, errScheme
	}
	scheme, ok = NormalizeScheme(scheme)
	if !ok {
		return URI{}, errScheme
	}
	if end := strings.IndexAny(rest, "?#"); end >= 0 {
		rest = rest[:end]
	}
	authority, path := rest, "/"
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		authority, path = rest[:slash], rest[slash:]
	}
	authority, err := NormalizeAuthority(scheme, authority)
	if err != nil {
		return URI{}, err
	}
	path, err = NormalizePath(path)
	if err != nil {
		return URI{}, err
	}
	return URI{scheme, authority, path}, nil
}

// NormalizeScheme returns http or https in lower case, and whether the scheme
// is one of the two.
func NormalizeScheme(scheme string) (string, bool) {
	switch {
	case strings.EqualFold(scheme, "https") && len(scheme) == 5: // not ſ for s
		return "https", true
	case strings.EqualFold(scheme, "http"):
		return "http", true
	}
	return "", false
}

// NormalizeAuthority checks a host with an optional port, as in a Host header,
// and puts it in normal form: lower case, no escaped unreserved characters, and
// no port that is empty or the scheme's default.
func NormalizeAuthority(scheme, authority string) (string, error) {
	host, port := authority, ""
	if colon := strings.LastIndexByte(authority, ':'); colon > strings.LastIndexByte(authority, ']') {
		host, port = authority[:colon], authority[colon+1:]
	}
	if !isPort(port) {
		return "", errAuthority
	}
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !strings.HasSuffix(host, "]") || !addr.Is6() || addr.Zone() != "" {
			return "", errAuthority
		}
	} else {
		var err error
		if host, err = unescapeUnreserved(host, &hostByte); err != nil || host == "" {
			return "", errAuthority
		}
	}
	host = strings.ToLower(host)
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return host, nil
	}
	return host + ":" + port, nil
}

func isPort(port string) bool {
	number := 0
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' || i == 5 {
			return false
		}
		number = 10*number + int(port[i]-'0')
	}
	return number <= 65535
}

// NormalizePath puts the path of a URI in normal form: unreserved characters
// not escaped, other escapes in upper case, no dot segments. Reserved
// characters stay as they are, escaped or not, because the two differ.
func NormalizePath(path string) (string, error) {
	if path == "" {
		return "/", nil // RFC 3986 §6.2.3
	}
	if path[0] != '/' {
		return "", errPath
	}
	path, err := unescapeUnreserved(path, &pathByte)
	if err != nil {
		return "", err
	}
	if strings.Contains(path, "/.") {
		path = removeDotSegments(path)
	}
	return path, nil
}

// class says what may stand for a byte in one component of a URI.
type class byte

const (
	forbidden class = iota
	plain           // as it is
	escaped         // by its percent-encoding: browsers send these bare
)

const (
	unreservedBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	subDelims       = "!$&'()*+,;="
)

var (
	unreserved = classes(unreservedBytes, "")
	hostByte   = classes(unreservedBytes+subDelims, "")
	// WHATWG URLs leave some characters bare in a path that RFC 3986 knows only
	// percent-encoded. None of them delimits anything in a path, so both spellings
	// are one.
	// The backslash is not among them: to many parsers it is a slash.
	pathByte = classes(unreservedBytes+subDelims+":@/", "\"<>[]^`{|}")
)

func classes(plainBytes, escapedBytes string) (table [256]class) {
	for i := range len(plainBytes) {
		table[plainBytes[i]] = plain
	}
	for i := range len(escapedBytes) {
		table[escapedBytes[i]] = escaped
	}
	return table
}

// unescapeUnreserved decodes the percent-encoded unreserved characters of a
// component, and writes the other escapes in upper case (RFC 3986 §6.2.2.1 and
// §6.2.2.2). A component already in that form is returned as it is.
func unescapeUnreserved(component string, table *[256]class) (string, error) {
	i := 0
	for i < len(component) && table[component[i]] == plain {
		i++
	}
	if i == len(component) {
		return component, nil
	}
	const upperHex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(component) + 8)
	b.WriteString(component[:i])
	for ; i < len(component); i++ {
		c := component[i]
		if c == '%' {
			if i+2 >= len(component) {
				return "", errPath
			}
			var octet [1]byte
			if _, err := hex.Decode(octet[:], []byte(component[i+1:i+3])); err != nil {
				return "", errPath
			}
			i += 2
			c = octet[0]
			if unreserved[c] == plain {
				b.WriteByte(c)
				continue
			}
		} else {
			switch table[c] {
			case plain:
				b.WriteByte(c)
				continue
			case forbidden:
				return "", errPath
			}
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String(), nil
}

// removeDotSegments is RFC 3986 §5.2.4 for a path that begins with a slash.
// Empty segments are segments like any other.
func removeDotSegments(path string) string {
	out := make([]byte, 0, len(path))
	for rest := path; rest != ""; {
		segment, last := rest[1:], true
		if slash := strings.IndexByte(segment, '/'); slash >= 0 {
			segment, last = segment[:slash], false
		}
		rest = rest[1+len(segment):]
		switch segment {
		case ".":
		case "..":
			if slash := bytes.LastIndexByte(out, '/'); slash >= 0 {
				out = out[:slash]
			}
		default:
			out = append(append(out, '/'), segment...)
			continue
		}
		if last {
			out = append(out, '/')
		}
	}
	return string(out)
}
