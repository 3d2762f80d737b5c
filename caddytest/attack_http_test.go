package caddytest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// exchange sends bytes as they are, and returns all answers up to the end of the
// connection, which the last of the requests must ask for.
func exchange(t *testing.T, g *gateway, text string) []*http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+g.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	var answers []*http.Response
	for reader := bufio.NewReader(conn); ; {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("after %d answers the server still waits", len(answers))
			}
			return answers
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		answers = append(answers, response)
	}
}

// spell makes the bytes of requests of a text in which \n stands for the end of a
// line, ¶ for a bare line feed, ¤ for a bare carriage return, and $name for what
// is given.
func spell(text string, names ...string) string {
	return strings.NewReplacer(append(names, "\n", "\r\n", "¶", "\n", "¤", "\r")...).Replace(text)
}

// Requests as bytes: fields that are repeated, joined, folded or oddly spelt, and
// what hides one request in another. Each row says what becomes of each request
// that the server sees; the backend gets those that are accepted, and no other.
func TestAttackRequestsAsBytes(t *testing.T) {
	g := serve(t, setup{address: "http://:{{PORT}}", site: "{{DPOP}}\nreverse_proxy {{BACKEND}}" + saysWhy})
	host := "127.0.0.1:" + g.port
	const line, end = "GET /orders HTTP/1.1\nHost: $host\n", "Connection: close\n\n"
	const good = line + "$auth\n$dpop\n"
	hidden := "GET /hidden HTTP/1.1\nHost: " + host + "\n" + end
	length := func(text string) string { return fmt.Sprint(len(spell(text))) }

	for _, row := range []struct {
		attack, source, text string
		reasons              []string
	}{
		{"good", "RFC 9449 §7.1", good + end, []string{isAccepted}},

		// Repeated.
		{"Authorization twice", "RFC 9110 §5.3, Keycloak issue 36476", good + "$auth\n" + end, []string{"authorization_repeated"}},
		{"Authorization twice, in other cases", "RFC 9110 §5.1", line + "authorization: $token\nAUTHORIZATION: $token\n$dpop\n" + end, []string{"authorization_repeated"}},
		{"Authorization for each scheme", "RFC 9449 §7.2", good + "Authorization: Bearer x\n" + end, []string{"authorization_repeated"}},
		{"Authorization, and an empty one", "RFC 9110 §5.3", good + "Authorization:\n" + end, []string{"authorization_repeated"}},
		{"an empty Authorization first", "RFC 9110 §5.3", line + "Authorization:\n$auth\n$dpop\n" + end, []string{"authorization_repeated"}},
		{"DPoP twice", "RFC 9449 §4.3 check 1", good + "$dpop\n" + end, []string{"proof_repeated"}},
		{"DPoP twice, in other cases", "RFC 9449 §4.3 check 1", line + "$auth\ndpop: $proof\nDPOP: $proof\n" + end, []string{"proof_repeated"}},
		{"DPoP, and an empty one", "RFC 9449 §4.3 check 1", good + "DPoP:\n" + end, []string{"proof_repeated"}},
		{"an empty DPoP first", "RFC 9449 §4.3 check 1", line + "$auth\nDPoP:\n$dpop\n" + end, []string{"proof_repeated"}},
		{"joined proofs, the second good", "RFC 9110 §5.3", line + "$auth\nDPoP: x, $proof\n" + end, []string{"proof_malformed"}},
		{"joined credentials, the second good", "RFC 9110 §11.6.2", line + "Authorization: Bearer x, $token\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"credentials for a proxy", "RFC 9110 §11.7.1", line + "Proxy-Authorization: $token\n$dpop\n" + end, []string{"no_credentials"}},
		{"a cookie for a token", "RFC 6750 §2", line + "Cookie: Authorization=$token; access_token=$token\n$dpop\n" + end, []string{"no_credentials"}},

		// Folded and oddly spelt.
		{"Authorization folded", "RFC 9112 §5.2: one space", line + "Authorization: DPoP\n\t$bare\n$dpop\n" + end, []string{isAccepted}},
		{"a proof folded", "RFC 9112 §5.2", line + "$auth\nDPoP: $head\n $tail\n" + end, []string{"proof_malformed"}},
		{"a token folded", "RFC 9112 §5.2", line + "Authorization: DPoP x\n $bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"credentials folded into another field", "RFC 9112 §5.2", line + "X-A: 1\n $auth\n$dpop\n" + end, []string{"no_credentials"}},
		{"a space before the colon", "RFC 9112 §5.1", line + "Authorization : $token\n$dpop\n" + end, []string{byServer}},
		{"a tab before the colon", "RFC 9112 §5.1", line + "$auth\nDPoP\t: $proof\n" + end, []string{byServer}},
		{"white space before the first field", "RFC 9112 §2.2", "GET /orders HTTP/1.1\n Host: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a NUL in a field", "RFC 9110 §5.5", line + "$auth\x00\n$dpop\n" + end, []string{byServer}},
		{"a bare carriage return in a field", "RFC 9112 §2.2", line + "$auth¤X-A: 1\n$dpop\n" + end, []string{byServer}},
		{"a bare carriage return in a proof", "RFC 9112 §2.2", line + "$auth\nDPoP: $head¤$tail\n" + end, []string{byServer}},
		{"bare line feeds", "RFC 9112 §2.2: may be taken for ends of lines", line + "$auth¶$dpop¶" + end, []string{isAccepted}},
		{"a name with a NUL", "RFC 9110 §5.1", line + "$auth\nDPoP\x00: $proof\n" + end, []string{byServer}},
		{"a name with a letter like P", "RFC 9110 §5.1", line + "$auth\nDР\u043eP: $proof\n" + end, []string{byServer}},
		{"no space after the colon", "RFC 9112 §5", line + "Authorization:$token\nDPoP:$proof\n" + end, []string{isAccepted}},
		{"white space around the value", "RFC 9110 §5.5", line + "Authorization: \t $token\t \nDPoP:\t$proof \n" + end, []string{isAccepted}},
		{"a vertical tab for the space", "RFC 9110 §5.5", line + "Authorization: DPoP\v$bare\n$dpop\n" + end, []string{byServer}},
		{"a tab for the space", "RFC 9110 §11.4", line + "Authorization: DPoP\t$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a space that is none, after the scheme", "RFC 9110 §11.4", line + "Authorization: DPoP\u00a0$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a space that is none, before the token", "RFC 9110 §11.2", line + "Authorization: DPoP \u00a0$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a space that is none, after a proof", "RFC 9449 §4.1", line + "$auth\nDPoP: $proof\u00a0\n" + end, []string{"proof_malformed"}},
		{"a colon after the scheme", "RFC 9110 §11.4", line + "Authorization: DPoP: $bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a comma after the scheme", "RFC 9110 §11.4", line + "Authorization: DPoP,$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"an equals sign after the scheme", "RFC 9110 §11.4", line + "Authorization: DPoP=$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"the token as a parameter", "RFC 9110 §11.4", line + "Authorization: DPoP token=\"$bare\"\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"the token in quotes", "RFC 9110 §11.2", line + "Authorization: DPoP \"$bare\"\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a parameter after the token", "RFC 9110 §11.4", line + "$auth, x=y\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"padding in front of the token", "RFC 9110 §11.2", line + "Authorization: DPoP =$bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a scheme with a letter like D", "RFC 9110 §11.1", line + "Authorization: \u13a0PoP $bare\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"the scheme in other cases", "RFC 9110 §11.1", line + "Authorization: dPOp $bare\n$dpop\n" + end, []string{isAccepted}},

		// Request lines.
		{"the method in lower case", "RFC 9110 §9.1", "get /orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"proof_method"}},
		{"the asterisk form", "RFC 9112 §3.2.4", "GET * HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a path without its slash", "RFC 9112 §3.2.1", "GET orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a URI without authority", "RFC 9112 §3.2.2", "GET http:/orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a URI without a slash", "RFC 9112 §3.2.2", "GET http:orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a URI of a file", "RFC 9112 §3.2.2", "GET file:///orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a fragment that hides a path", "RFC 9112 §3.2.1", "GET /orders#/../admin HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a fragment after a query", "RFC 9112 §3.2.1", "GET /orders?a#b HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a backslash", "WHATWG URL takes it for a slash", "GET /x\\..\\orders HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a per cent sign alone", "nuts-node pull 4112", "GET /orders% HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a space in the target", "RFC 9112 §3", "GET /orders /x HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a NUL in the target", "RFC 9112 §3.2", "GET /orders\x00 HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a tunnel", "RFC 9110 §9.3.6", "CONNECT $host HTTP/1.1\nHost: $host\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"HTTP/0.9", "RFC 1945 §4.1", "GET /orders-of-a-long-time-ago\n", []string{byServer}},
		{"HTTP/2.0 by name", "RFC 9113 §3", "GET /orders HTTP/2.0\nHost: $host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"HTTP/1.0", "RFC 9112 §2.3", "GET /orders HTTP/1.0\nHost: $host\n$auth\n$dpop\n\n", []string{isAccepted}},
		{"HTTP/1.0 without Host", "RFC 9112 §3.2", "GET /orders HTTP/1.0\n$auth\n$dpop\n\n", []string{"request_malformed"}},
		{"no Host", "RFC 9112 §3.2", "GET /orders HTTP/1.1\n$auth\n$dpop\n" + end, []string{byServer}},
		{"two Hosts", "RFC 9112 §3.2", good + "Host: other.example\n" + end, []string{byServer}},
		{"a Host of two", "RFC 9112 §3.2", "GET /orders HTTP/1.1\nHost: $host,other.example\n$auth\n$dpop\n" + end, []string{"request_malformed"}},
		{"a Host with user information", "RFC 9110 §4.2.4", "GET /orders HTTP/1.1\nHost: x@$host\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a Host with a path", "RFC 9112 §3.2", "GET / HTTP/1.1\nHost: $host/orders\n$auth\n$dpop\n" + end, []string{byServer}},
		{"a Host that ends in a dot", "RFC 9110 §4.2.3: another host", "GET /orders HTTP/1.1\nHost: localhost.:$port\n$auth\n$dpop\n" + end, []string{"proof_url"}},

		// One request in another.
		{"two requests, each with its own", "RFC 9112 §9.3.2", good + "\n" + line + "$auth\n$again\n" + end, []string{isAccepted, isAccepted}},
		{"the same proof twice in a row", "RFC 9449 §11.1", good + "\n" + good + end, []string{isAccepted, "proof_replayed"}},
		{"a request without credentials behind a good one", "RFC 9112 §9.3.2", good + "\n" + hidden, []string{isAccepted, "no_credentials"}},
		{"a length and chunks: chunks count", "RFC 9112 §6.3", good + "Content-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n" + hidden, []string{isAccepted, "no_credentials"}},
		{"chunks that are called otherwise", "RFC 9112 §6.1", good + "Transfer-Encoding: xchunked\nContent-Length: " + length(hidden) + "\n" + end + hidden, []string{byServer}},
		{"chunks behind another coding", "RFC 9112 §6.1", good + "Transfer-Encoding: chunked, identity\n" + end + hidden, []string{byServer}},
		{"chunks twice", "RFC 9112 §6.1", good + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n" + end + hidden, []string{byServer}},
		{"chunks after a vertical tab", "RFC 9112 §6.1", good + "Transfer-Encoding: \vchunked\n" + end + hidden, []string{byServer}},
		{"two lengths", "RFC 9112 §6.3", good + "Content-Length: 0\nContent-Length: " + length(hidden) + "\n" + end + hidden, []string{byServer}},
		{"a length with a sign", "RFC 9112 §6.3", good + "Content-Length: +0\n" + end + hidden, []string{byServer}},
		{"a negative length", "RFC 9112 §6.3", good + "Content-Length: -1\n" + end + hidden, []string{byServer}},
		{"a request as a body", "RFC 9112 §6.3", good + "Content-Length: " + length(hidden) + "\n" + end + hidden, []string{isAccepted}},
		{"a request as the body of a refused one", "RFC 9112 §6.3", line + "Content-Length: " + length(hidden) + "\n" + end + hidden, []string{"no_credentials"}},
		{"a request as the body of a refused one, and one behind", "RFC 9112 §6.3", line + "Content-Length: " + length(hidden) + "\n\n" + hidden + hidden, []string{"no_credentials", "no_credentials"}},
		{"a request behind the last", "RFC 9112 §9.6", good + end + hidden, []string{isAccepted}},
		{"a chunk of more than all", "RFC 9112 §7.1", line + "Transfer-Encoding: chunked\n" + end + "fffffffffffffffff\n" + hidden, []string{"no_credentials"}},

		// Trailers never count (RFC 9110 §6.5.1).
		{"all credentials as trailers", "RFC 9110 §6.5.1", line + "Transfer-Encoding: chunked\nTrailer: Authorization, DPoP\n" + end + "0\n$auth\n$dpop\n\n", []string{"no_credentials"}},
		{"the proof as a trailer", "RFC 9110 §6.5.1", line + "$auth\nTransfer-Encoding: chunked\nTrailer: DPoP\n" + end + "0\n$dpop\n\n", []string{"proof_missing"}},
		{"the proof once more as a trailer", "RFC 9110 §6.5.1", good + "Transfer-Encoding: chunked\nTrailer: DPoP\n" + end + "0\n$dpop\n\n", []string{isAccepted}},

		// Size and number.
		{"expecting something else than to go on", "RFC 9110 §10.1.1", good + "Expect: x\n" + end, []string{byServer}},
		{"500 fields", "SECURITY.md", good + strings.Repeat("X-A: 1\n", 500) + end, []string{isAccepted}},
		{"100,000 fields", "RFC 6585 §5", good + strings.Repeat("X-A: 1\n", 100_000) + end, []string{byServer}},
		{"a token of more than 16 KiB", "SECURITY.md", line + "Authorization: DPoP " + strings.Repeat("a", 16<<10+1) + "\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"padding of more than 16 KiB", "SECURITY.md", line + "$auth" + strings.Repeat("=", 16<<10) + "\n$dpop\n" + end, []string{"authorization_malformed"}},
		{"a proof of more than 8 KiB", "SECURITY.md", line + "$auth\nDPoP: " + strings.Repeat("a", 8<<10+1) + "\n" + end, []string{"proof_too_large"}},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			token, proof := fresh(t, "GET", g.url+"/orders")
			half := len(proof) / 2
			answers := exchange(t, g, spell(row.text, "$host", host, "$port", g.port, "$auth", "Authorization: DPoP "+token, "$token", "DPoP "+token, "$bare", token,
				"$dpop", "DPoP: "+proof, "$proof", proof, "$head", proof[:half], "$tail", proof[half:],
				"$again", "DPoP: "+dpop(t, "GET", g.url+"/orders", token, nil)))
			if len(answers) != len(row.reasons) {
				t.Fatalf("%d answers, want %d", len(answers), len(row.reasons))
			}
			accepted := 0
			for n, a := range answers {
				got, want := a.Header.Get("X-Reason"), row.reasons[n]
				switch {
				case want == isAccepted && a.StatusCode == 200:
					accepted++
				case want == byServer && a.StatusCode >= 400 && got == "":
				case want != isAccepted && want != byServer && a.StatusCode >= 400 && got == want:
				default:
					t.Errorf("request %d: answered %d because of %q, want %q", n+1, a.StatusCode, got, want)
				}
			}
			all := g.backend.requests()
			if len(all) != accepted {
				t.Errorf("the backend got %d requests, want %d", len(all), accepted)
			}
			for _, one := range all {
				if one.uri != "/orders" || len(one.header["Authorization"]) != 1 || one.header["Authorization"][0] != "Bearer "+token || one.header["Dpop"] != nil {
					t.Errorf("the backend got %s with %v", one.uri, one.header)
				}
			}
		})
	}
}

// A client that waits for leave to send a body gets none if it is refused.
func TestAttackExpectContinue(t *testing.T) {
	g := attacked(t, "")
	token, proof := fresh(t, "POST", g.url+"/")
	for _, row := range []struct {
		proof    string
		statuses string
	}{{"x", "401"}, {proof, "100 200"}} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+g.port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", g.port, token, row.proof)
		var statuses []string
		for reader := bufio.NewReader(conn); ; {
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				break
			}
			statuses = append(statuses, fmt.Sprint(response.StatusCode))
			if response.StatusCode == http.StatusContinue {
				_, _ = io.WriteString(conn, "body")
				continue
			}
			_, _ = io.Copy(io.Discard, response.Body)
		}
		// the upstream may say so too
		if got := strings.Join(slices.Compact(statuses), " "); got != row.statuses {
			t.Errorf("answered %s, want %s", got, row.statuses)
		}
	}
	if got := g.backend.one(t); got.body != "body" {
		t.Errorf("the backend got %q", got.body)
	}
}
