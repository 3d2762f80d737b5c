package proof

import (
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	tests := []struct {
		name, text, want string // want is empty: refused
	}{
		{"as it is", "https://example.com/a/b", "https://example.com/a/b"},
		{"http", "http://example.com/a", "http://example.com/a"},
		{"RFC 3986 §6.2.2", "HTTP://a/./b/../b/%63/%7bfoo%7d", "http://a/b/c/%7Bfoo%7D"},
		{"scheme in upper case, RFC 3986 §6.2.2.1", "HTTPS://example.com/", "https://example.com/"},
		{"host in upper case, RFC 3986 §6.2.2.1", "https://EXAMPLE.com/A", "https://example.com/A"},
		{"empty path, RFC 3986 §6.2.3", "http://example.com", "http://example.com/"},
		{"empty port, RFC 3986 §6.2.3", "http://example.com:/", "http://example.com/"},
		{"default port, RFC 3986 §6.2.3", "http://example.com:80/", "http://example.com/"},
		{"default port and empty path", "https://example.com:443", "https://example.com/"},
		{"empty port and empty path", "https://example.com:", "https://example.com/"},
		{"the other scheme's default port", "https://example.com:80/", "https://example.com:80/"},
		{"the other scheme's default port, http", "http://example.com:443/", "http://example.com:443/"},
		{"query, RFC 9449 §4.3 check 9", "https://example.com/a?b=c/../d", "https://example.com/a"},
		{"fragment, RFC 9449 §4.3 check 9", "https://example.com/a#b/../c", "https://example.com/a"},
		{"query and no path", "https://example.com?a/b", "https://example.com/"},
		{"fragment and no path", "https://example.com#a/b", "https://example.com/"},
		{"at sign in the query", "https://example.com?a@evil.example/", "https://example.com/"},
		{"bad escape in the query, which does not count", "https://example.com/?%zz", "https://example.com/"},
		{"escaped question mark is part of the path", "https://example.com/a%3fb", "https://example.com/a%3Fb"},
		{"escaped hash is part of the path", "https://example.com/a%23b", "https://example.com/a%23b"},
		{"IPv4", "https://192.0.2.1:8443/a", "https://192.0.2.1:8443/a"},
		{"IPv6, RFC 3986 §3.2.2", "https://[2001:DB8::1]/a", "https://[2001:db8::1]/a"},
		{"IPv6 with default port", "https://[::1]:443/", "https://[::1]/"},
		{"IPv6 with empty port", "https://[::1]:/", "https://[::1]/"},
		{"IPv6 with port", "https://[::1]:8443/", "https://[::1]:8443/"},
		{"at sign in the path", "https://example.com/@user", "https://example.com/@user"},
		{"URL in the path", "https://example.com/https://other.example/", "https://example.com/https://other.example/"},
		{"trailing dot of the host", "https://example.com./", "https://example.com./"},

		{"nothing", "", ""},
		{"path", "/a", ""},
		{"without scheme", "//example.com/a", ""},
		{"empty scheme", "://example.com/a", ""},
		{"host alone", "example.com/a", ""},
		{"scheme alone", "https://", ""},
		{"no authority, RFC 9110 §4.2.1", "https:///a", ""},
		{"port alone", "https://:443/a", ""},
		{"query alone", "https://?a", ""},
		{"one slash", "https:/example.com/a", ""},
		{"no slash", "https:example.com/a", ""},
		{"backslashes, as WHATWG would read them", `https:\\example.com\a`, ""},
		{"other scheme", "ftp://example.com/a", ""},
		{"scheme of a WebSocket", "wss://example.com/a", ""},
		{"longer scheme", "httpss://example.com/a", ""},
		{"scheme with a long s", "http\u017f://example.com/a", ""},
		{"scheme with a space", " https://example.com/a", ""},
		{"scheme in another scheme", "view:https://example.com/a", ""},
		{"user, RFC 9110 §4.2.4", "https://user@example.com/a", ""},
		{"user and password, RFC 9110 §4.2.4", "https://user:pass@example.com/a", ""},
		{"empty user", "https://@example.com/a", ""},
		{"host as a user", "https://example.com:443@evil.example/a", ""},
		{"user by an escape stays a host's name", "https://user%40example.com/a", "https://user%40example.com/a"},
		{"backslash before a host", `https://evil.example\@example.com/a`, ""},
		{"backslash in the path", `https://example.com\a`, ""},
		{"space in the host", "https://exam ple.com/a", ""},
		{"space in the path", "https://example.com/a b", ""},
		{"tab in the path", "https://example.com/a\tb", ""},
		{"line feed behind", "https://example.com/a\n", ""},
		{"NUL in the path", "https://example.com/a\x00", ""},
		{"%zz in the path (nuts-node pull 4112)", "https://example.com/%zz", ""},
		{"%zz in the host", "https://example%zz.com/", ""},
		{"not ASCII in the host", "https://ex\u00e4mple.com/", ""},
		{"Kelvin sign in the host", "https://\u212aelvin.example/", ""},
		{"not ASCII in the path, RFC 3986 §2", "https://example.com/\u00e4", ""},
		{"port that is a name", "https://example.com:https/a", ""},
		{"port below zero", "https://example.com:-1/a", ""},
		{"two ports", "https://example.com:443:443/a", ""},
		{"IPv6 without brackets", "https://2001:db8::1/a", ""},
		{"IPv6 not ended", "https://[::1/a", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseURI(test.text)
			switch {
			case test.want == "" && err == nil:
				t.Errorf("%q was accepted as %s", test.text, got)
			case test.want != "" && err != nil:
				t.Errorf("%q: %v", test.text, err)
			case test.want != "" && got.String() != test.want:
				t.Errorf("%q is %s, not %s", test.text, got, test.want)
			}
		})
	}
}

func TestParseURITakesApart(t *testing.T) {
	got, err := ParseURI("HTTPS://API.example.com:8443/A/../b?c#d")
	if want := (URI{"https", "api.example.com:8443", "/b"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNormalizeScheme(t *testing.T) {
	for scheme, want := range map[string]string{
		"http": "http", "HTTP": "http", "hTtP": "http", "https": "https", "HTTPS": "https", "Https": "https",
		"": "", "h": "", "httpx": "", "http ": "", "http\u017f": "", "HTTP\u017f": "", "ws": "", "wss": "", "file": "",
	} {
		if got, ok := NormalizeScheme(scheme); got != want || ok != (want != "") {
			t.Errorf("%q is %q, %t", scheme, got, ok)
		}
	}
}

func TestNormalizeAuthority(t *testing.T) {
	tests := []struct {
		name, scheme, text, want string // want is empty: refused
	}{
		{"name", "https", "example.com", "example.com"},
		{"case, RFC 3986 §6.2.2.1", "https", "Example.COM", "example.com"},
		{"default port, RFC 3986 §6.2.3", "https", "example.com:443", "example.com"},
		{"default port of http", "http", "example.com:80", "example.com"},
		{"http's port under https", "https", "example.com:80", "example.com:80"},
		{"https' port under http", "http", "example.com:443", "example.com:443"},
		{"empty port", "http", "example.com:", "example.com"},
		{"other port", "https", "example.com:8443", "example.com:8443"},
		{"a port that begins like the default one", "https", "example.com:4430", "example.com:4430"},
		{"escaped letter, RFC 3986 §6.2.2.2", "https", "%65xample.com", "example.com"},
		{"escaped capital letter", "https", "%45xample.com", "example.com"},
		{"escaped dot", "https", "example%2Ecom", "example.com"},
		{"escaped hyphen and underscore", "https", "a%2db%5Fc", "a-b_c"},
		{"escaped slash is no slash", "https", "example.com%2Fa", "example.com%2fa"},
		{"escaped colon is no port", "https", "example.com%3A443", "example.com%3a443"},
		{"underscore, of Docker's names", "http", "my_backend:8080", "my_backend:8080"},
		{"punycode", "https", "XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"IPv4", "http", "127.0.0.1:80", "127.0.0.1"},
		{"IPv6", "http", "[::1]:80", "[::1]"},
		{"IPv6, upper case", "http", "[FE80::A]:8080", "[fe80::a]:8080"},
		{"IPv6 with IPv4", "http", "[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"},

		{"nothing", "https", "", ""},
		{"port alone", "https", ":443", ""},
		{"colon alone", "https", ":", ""},
		{"user", "https", "user@example.com", ""},
		{"user and password", "https", "user:pass@example.com", ""},
		{"slash: an HTTP/2 authority may hold it", "https", "example.com/victim", ""},
		{"question mark", "https", "example.com?", ""},
		{"hash", "https", "example.com#", ""},
		{"backslash", "https", `example.com\`, ""},
		{"space", "https", "example.com ", ""},
		{"line feed", "https", "example.com\n", ""},
		{"NUL", "https", "example.com\x00", ""},
		{"quote", "https", `example.com"`, ""},
		{"less-than sign", "https", "<example.com>", ""},
		{"bar, bare in paths only", "https", "a|b", ""},
		{"caret, bare in paths only", "https", "a^b", ""},
		{"not ASCII", "https", "b\u00fccher.example", ""},
		{"Kelvin sign", "https", "\u212aelvin.example", ""},
		{"%zz", "https", "%zz", ""},
		{"escape cut short", "https", "example.com%4", ""},
		{"escape cut shorter", "https", "example.com%", ""},
		{"port not a number", "https", "example.com:8a", ""},
		{"port with a sign", "https", "example.com:+443", ""},
		{"port of six digits", "https", "example.com:100000", ""},
		{"port of other digits", "https", "example.com:\u0664\u0664\u0663", ""},
		{"IPv6, no brackets", "https", "::1", ""},
		{"IPv6, not ended", "https", "[::1", ""},
		{"IPv6, not ended, with a port", "https", "[::1:443", ""},
		{"IPv6, not begun", "https", "::1]", ""},
		{"IPv6, ended twice", "https", "[::1]]", ""},
		{"IPv6, text behind", "https", "[::1]a", ""},
		{"IPv6, text before", "https", "a[::1]", ""},
		{"IPv6, empty", "https", "[]", ""},
		{"IPv6, too long", "https", "[1:2:3:4:5:6:7:8:9]", ""},
		{"IPv6 with a zone, RFC 6874", "https", "[fe80::1%25eth0]", ""},
		{"IPv6 with a bare zone", "https", "[fe80::1%eth0]", ""},
		{"IPv4 in brackets", "https", "[127.0.0.1]", ""},
		{"IPvFuture, RFC 3986 §3.2.2", "https", "[v1.a]", ""},
		{"name in brackets", "https", "[example.com]", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := NormalizeAuthority(test.scheme, test.text)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%q is %q, %v; want %q", test.text, got, err, test.want)
			}
		})
	}
}

func TestNormalizePath(t *testing.T) {
	tests := []struct {
		name, text, want string // want is empty: refused
	}{
		{"empty, RFC 3986 §6.2.3", "", "/"},
		{"root", "/", "/"},
		{"trailing slash counts", "/a/", "/a/"},
		{"case counts, RFC 3986 §6.2.2.1", "/Ab", "/Ab"},
		{"double slash counts", "/a//b", "/a//b"},
		{"double slash first", "//a", "//a"},
		{"double slash last", "/a//", "/a//"},

		// RFC 3986 §6.2.2.2: unreserved characters need no escape.
		{"escaped letter", "/%61", "/a"},
		{"escaped capital letter", "/%41", "/A"},
		{"escaped digit", "/%30", "/0"},
		{"escaped -._~", "/x%2D%2E%5F%7E", "/x-._~"},
		{"escaped tilde in lower case", "/%7eabc", "/~abc"},
		{"escaped per cent sign, once", "/%2561", "/%2561"},
		{"all of it", "/%61%2f%62", "/a%2Fb"},
		// RFC 3986 §2.2, §6.2.2.2: reserved characters differ from their escapes.
		{"escaped slash", "/a%2fb", "/a%2Fb"},
		{"escaped per cent sign", "/%25", "/%25"},
		{"escaped sub-delimiters", "/%21%24%26%27%28%29%2a%2b%2c%3b%3d", "/%21%24%26%27%28%29%2A%2B%2C%3B%3D"},
		{"sub-delimiters", "/!$&'()*+,;=", "/!$&'()*+,;="},
		{"escaped colon and at sign", "/%3a%40", "/%3A%40"},
		{"colon and at sign", "/:@", "/:@"},
		{"escaped ? # [ ]", "/%3f%23%5b%5d", "/%3F%23%5B%5D"},
		// RFC 3986 §6.2.2.1: hexadecimal digits in upper case.
		{"escape in lower case", "/%c3%a9", "/%C3%A9"},
		{"escape of mixed case", "/%cA", "/%CA"},
		{"escaped NUL", "/%00", "/%00"},
		{"escaped space", "/a%20b", "/a%20b"},
		{"plus is no space", "/a+b", "/a+b"},
		{"escaped backslash", "/%5c", "/%5C"},
		// What browsers leave bare (WHATWG URL, path percent-encode set).
		{"bare brackets, bar and caret", "/[|]^", "/%5B%7C%5D%5E"},
		{"bare quote, angles, accent, braces", "/\"<>`{}", "/%22%3C%3E%60%7B%7D"},

		// RFC 3986 §5.2.4 and §6.2.2.3.
		{"§5.2.4", "/a/b/c/./../../g", "/a/g"},
		{"§6.2.2", "/./b/../b/%63/%7bfoo%7d", "/b/c/%7Bfoo%7D"},
		{"§5.4: .", "/b/c/.", "/b/c/"},
		{"§5.4: ./", "/b/c/./", "/b/c/"},
		{"§5.4: ..", "/b/c/..", "/b/"},
		{"§5.4: ../", "/b/c/../", "/b/"},
		{"§5.4: ../g", "/b/c/../g", "/b/g"},
		{"§5.4: ../..", "/b/c/../..", "/"},
		{"§5.4: ../../", "/b/c/../../", "/"},
		{"§5.4: ../../g", "/b/c/../../g", "/g"},
		{"§5.4.2: ../../../g", "/b/c/../../../g", "/g"},
		{"§5.4.2: ../../../../g", "/b/c/../../../../g", "/g"},
		{"§5.4.2: /./g", "/./g", "/g"},
		{"§5.4.2: /../g", "/../g", "/g"},
		{"§5.4.2: g.", "/b/c/g.", "/b/c/g."},
		{"§5.4.2: .g", "/b/c/.g", "/b/c/.g"},
		{"§5.4.2: g..", "/b/c/g..", "/b/c/g.."},
		{"§5.4.2: ..g", "/b/c/..g", "/b/c/..g"},
		{"§5.4.2: ./../g", "/b/c/./../g", "/b/g"},
		{"§5.4.2: ./g/.", "/b/c/./g/.", "/b/c/g/"},
		{"§5.4.2: g/./h", "/b/c/g/./h", "/b/c/g/h"},
		{"§5.4.2: g/../h", "/b/c/g/../h", "/b/c/h"},
		{"§5.4.2: g;x=1/./y", "/b/c/g;x=1/./y", "/b/c/g;x=1/y"},
		{"§5.4.2: g;x=1/../y", "/b/c/g;x=1/../y", "/b/c/y"},
		{"three dots are a name", "/a/.../b", "/a/.../b"},
		{"dots alone", "/.", "/"},
		{"two dots alone", "/..", "/"},
		{"two dots many times", "/../../..", "/"},
		{"a segment may be empty", "/a//../b", "/a/b"},
		{"all empty", "///..", "//"},
		{"up from an empty segment", "//..", "/"},
		{"dot between slashes", "/a/.//b", "/a//b"},
		{"escaped dot segment", "/a/%2e/b", "/a/b"},
		{"escaped double dot", "/a/%2e%2e/b", "/b"},
		{"half escaped double dot", "/a/.%2E/b", "/b"},
		{"other half", "/a/%2e./b", "/b"},
		{"double dot and an escaped slash", "/a/..%2fb", "/a/..%2Fb"},
		{"twice escaped double dot", "/a/%252e%252e/b", "/a/%252e%252e/b"},
		{"double dot and a parameter", "/a/..;/b", "/a/..;/b"},

		{"no slash first", "a", ""},
		{"asterisk", "*", ""},
		{"dot first", "./a", ""},
		{"escaped slash first", "%2Fa", ""},
		{"%zz (nuts-node pull 4112)", "/%zz", ""},
		{"per cent sign last", "/%", ""},
		{"escape cut short", "/%4", ""},
		{"escape of a letter past F", "/%4g", ""},
		{"escape of a full-width digit", "/%４1", ""},
		{"question mark", "/a?b", ""},
		{"hash", "/a#b", ""},
		{"space", "/a b", ""},
		{"backslash", `/a\b`, ""},
		{"backslash and dots", `/a\..\b`, ""},
		{"tab", "/a\t", ""},
		{"NUL", "/a\x00", ""},
		{"delete", "/a\x7f", ""},
		{"not ASCII", "/\u00e9", ""},
		{"bad UTF-8", "/\xff", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := NormalizePath(test.text)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%q is %q, %v; want %q", test.text, got, err, test.want)
			}
		})
	}
}

func TestNormalizePathOfEachByte(t *testing.T) {
	// RFC 3986 appendix A, pchar; and what browsers leave bare.
	const letters = "abcdefghijklmnopqrstuvwxyz"
	unreserved := letters + strings.ToUpper(letters) + "0123456789-._~"
	pchar := unreserved + "!$&'()*+,;=:@"
	const bare = "\"<>[]^`{|}"
	const hex = "0123456789ABCDEF"
	for i := range 256 {
		c := string([]byte{byte(i)})
		escape := "%" + hex[i>>4:i>>4+1] + hex[i&15:i&15+1]
		want := "/x" + escape
		if strings.Contains(unreserved, c) {
			want = "/x" + c
		}
		for _, spelling := range []string{escape, strings.ToLower(escape)} {
			if got, err := NormalizePath("/x" + spelling); err != nil || got != want {
				t.Errorf("/x%s is %q, %v; want %q", spelling, got, err, want)
			}
		}
		want, ok := "", true
		switch {
		case strings.Contains(pchar, c) || c == "/":
			want = "/x" + c
		case strings.Contains(bare, c):
			want = "/x" + escape
		default:
			ok = false
		}
		if got, err := NormalizePath("/x" + c); got != want || (err == nil) != ok {
			t.Errorf("/x%q is %q, %v; want %q", c, got, err, want)
		}
	}
}
