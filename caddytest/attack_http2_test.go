package caddytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// field is a field of a request as HTTP/2 and HTTP/3 send it, pseudo-header fields
// among them.
type field struct{ name, value string }

// errReset says that the server has ended a request without an answer.
var errReset = errors.New("reset")

// sender sends the fields of one request as they are, on a connection of its own,
// and a body with trailers if there are any. The header of the answer is empty
// where only the log says what it was.
type sender func(t *testing.T, g *gateway, roots *x509.CertPool, fields, trailers []field) (http.Header, error)

// byHTTP2 is a sender that writes frames itself (RFC 9113).
func byHTTP2(t *testing.T, g *gateway, roots *x509.CertPool, fields, trailers []field) (http.Header, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", "127.0.0.1:"+g.port, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.AllowIllegalWrites = true
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	block := func(fields []field) []byte {
		var b bytes.Buffer
		encoder := hpack.NewEncoder(&b)
		for _, f := range fields {
			_ = encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value})
		}
		return b.Bytes()
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(fields), EndHeaders: true, EndStream: trailers == nil}); err != nil {
		t.Fatal(err)
	}
	if trailers != nil {
		_ = framer.WriteData(1, false, []byte("body"))
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(trailers), EndHeaders: true, EndStream: true})
	}
	var answer http.Header
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return answer, errReset
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			answer = make(http.Header)
			for _, f := range frame.Fields {
				answer.Add(f.Name, f.Value)
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return answer, errReset
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		}
		if ended {
			return answer, nil
		}
	}
}

// byHTTP3 is a sender that writes frames itself (RFC 9114), with fields spelt out
// (RFC 9204 §4.5.6).
func byHTTP3(t *testing.T, g *gateway, roots *x509.CertPool, fields, trailers []field) (http.Header, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, "127.0.0.1:"+g.port, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0x100, "") }() // H3_NO_ERROR
	control, err := conn.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = control.Write([]byte{0, 4, 0}) // a control stream with empty SETTINGS
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(kind byte, payload []byte) []byte {
		length := len(payload)
		return append([]byte{kind, 0x80, byte(length >> 16), byte(length >> 8), byte(length)}, payload...)
	}
	block := func(fields []field) []byte {
		octets := []byte{0, 0}
		for _, f := range fields {
			octets = append(prefixed(octets, 0x20, 3, len(f.name)), f.name...)
			octets = append(prefixed(octets, 0, 7, len(f.value)), f.value...)
		}
		return octets
	}
	_, _ = stream.Write(frame(1, block(fields)))
	if trailers != nil {
		_, _ = stream.Write(frame(0, []byte("body")))
		_, _ = stream.Write(frame(1, block(trailers)))
	}
	_ = stream.Close()
	_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(stream)
	if err != nil || len(answer) == 0 {
		return nil, errReset
	}
	return nil, nil
}

// prefixed appends an integer whose first bits share an octet with a pattern
// (RFC 7541 §5.1).
func prefixed(octets []byte, pattern byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(octets, pattern|byte(n))
	}
	octets = append(octets, pattern|byte(most))
	for n -= most; n >= 128; n >>= 7 {
		octets = append(octets, byte(n)|0x80)
	}
	return append(octets, byte(n))
}

// overTLS is a site with TLS that answers to any host, and what trusts it.
func overTLS(t *testing.T, settings string) (*gateway, *x509.CertPool) {
	t.Helper()
	certFile, keyFile, roots := certificate(t)
	g := serve(t, setup{address: "https://:{{PORT}}", options: "skip_install_trust", site: "tls " + certFile + " " + keyFile + "\n{{DPOP}} " + settings + "\nreverse_proxy {{BACKEND}}" + saysWhy})
	return g, roots
}

// Requests by HTTP/2 and HTTP/3 as no client library sends them.
func TestAttackHTTP2AndHTTP3(t *testing.T) {
	g, roots := overTLS(t, "")
	host := "127.0.0.1:" + g.port
	url := "https://" + host + "/orders"
	type change func(fields []field) []field
	set := func(name, value string) change {
		return func(fields []field) []field {
			for n := range fields {
				if fields[n].name == name {
					fields[n].value = value
				}
			}
			return fields
		}
	}
	add := func(more ...field) change { return func(fields []field) []field { return append(fields, more...) } }
	drop := func(name string) change {
		return func(fields []field) []field {
			var kept []field
			for _, f := range fields {
				if f.name != name {
					kept = append(kept, f)
				}
			}
			return kept
		}
	}
	rename := func(name, other string) change {
		return func(fields []field) []field {
			for n := range fields {
				if fields[n].name == name {
					fields[n].name = other
				}
			}
			return fields
		}
	}
	again := func(name string) change {
		return func(fields []field) []field {
			for _, f := range fields {
				if f.name == name {
					return append(fields, f)
				}
			}
			return fields
		}
	}
	both := func(changes ...change) change {
		return func(fields []field) []field {
			for _, c := range changes {
				fields = c(fields)
			}
			return fields
		}
	}

	for name, send := range map[string]sender{"HTTP/2.0": byHTTP2, "HTTP/3.0": byHTTP3} {
		for _, row := range []struct {
			attack, source string
			htu            string // of the proof; default: that of the request
			change         change
			trailers       []string // credentials that come as trailers
			reason         string
			by3            string // the reason by HTTP/3, if another
		}{
			{"good", "RFC 9449 §7.1", "", add(), nil, isAccepted, ""},
			{"an authority with a path", "RFC 9113 §8.3.1, Go checks it by HTTP/1 alone", url, both(set(":authority", host+"/orders?"), set(":path", "/admin")), nil, byServer, ""},
			{"an authority with a query", "RFC 9113 §8.3.1", "", set(":authority", host+"?x"), nil, byServer, ""},
			{"an authority with a fragment", "RFC 9113 §8.3.1", "", set(":authority", host+"#x"), nil, byServer, ""},
			{"an authority with user information", "RFC 9113 §8.3.1", "", set(":authority", "x@"+host), nil, byServer, ""},
			{"an authority of two", "RFC 9110 §7.2", "", set(":authority", host+","+host), nil, "request_malformed", ""},
			{"an authority with two ports", "RFC 3986 §3.2", "", set(":authority", host+":443"), nil, "request_malformed", ""},
			{"an authority with a port out of range", "RFC 3986 §3.2.3", "", set(":authority", "127.0.0.1:99999"), nil, "request_malformed", ""},
			{"an authority in brackets that is none", "RFC 3986 §3.2.2", "", set(":authority", "[127.0.0.1]:"+g.port), nil, "request_malformed", ""},
			{"an authority with a zone", "RFC 6874", "", set(":authority", "[::1%25lo]"), nil, "request_malformed", ""},
			{"another authority", "RFC 9449 §4.3 check 9", "", set(":authority", "other.example"), nil, "proof_url", ""},
			{"another host beside the authority", "RFC 9113 §8.3.1", "", add(field{"host", "other.example"}), nil, byServer, ""},
			{"a path that is a URI", "RFC 9113 §8.3.1", "https://other.example/orders", set(":path", "https://other.example/orders"), nil, byServer, ""},
			{"a path with a fragment", "RFC 9113 §8.3.1", "", set(":path", "/orders#/../admin"), nil, "request_malformed", ""},
			{"a path without its slash", "RFC 9113 §8.3.1", "", set(":path", "orders"), nil, byServer, ""},
			{"a path that is empty", "RFC 9113 §8.3.1", "", set(":path", ""), nil, byServer, ""},
			{"a path that is an asterisk", "RFC 9113 §8.3.1", "", set(":path", "*"), nil, "request_malformed", byServer},
			{"a path with dots", "RFC 3986 §6.2.2.3", "", set(":path", "/x/%2e%2E/orders"), nil, isAccepted, ""},
			{"two authorities", "RFC 9113 §8.3", "", again(":authority"), nil, byServer, ""},
			{"two methods", "RFC 9113 §8.3", "", again(":method"), nil, byServer, ""},
			{"a host for the authority", "RFC 9113 §8.3.1", "", both(drop(":authority"), add(field{"host", host})), nil, isAccepted, ""},
			{"no path", "RFC 9113 §8.3.1", "", drop(":path"), nil, byServer, ""},
			{"two paths", "RFC 9113 §8.3", "", both(again(":path")), nil, byServer, ""},
			{"another scheme", "RFC 9113 §8.3.1: the connection counts", "http" + url[5:], set(":scheme", "http"), nil, "proof_url", ""},
			{"the method in lower case", "RFC 9110 §9.1", "", set(":method", "get"), nil, "proof_method", ""},
			{"Authorization twice", "RFC 9110 §5.3", "", again("authorization"), nil, "authorization_repeated", ""},
			{"DPoP twice", "RFC 9449 §4.3 check 1", "", again("dpop"), nil, "proof_repeated", ""},
			{"DPoP in upper case", "RFC 9113 §8.2.1", "", rename("dpop", "DPoP"), nil, byServer, ""},
			{"a line break in a field", "RFC 9113 §8.2.1", "", add(field{"x-a", "1\r\nx-user: admin"}), nil, byServer, ""},
			{"a line break in a name", "RFC 9113 §8.2.1", "", add(field{"x-a: 1\r\nx-user", "admin"}), nil, byServer, ""},
			{"a NUL in the credentials", "RFC 9113 §8.2.1", "", func(fields []field) []field {
				return both(drop("authorization"), add(field{"authorization", "DPoP x\x00"}))(fields)
			}, nil, byServer, ""},
			{"Connection", "RFC 9113 §8.2.2", "", add(field{"connection", "authorization"}), nil, byServer, ""},
			{"Transfer-Encoding", "RFC 9113 §8.2.2", "", add(field{"transfer-encoding", "chunked"}), nil, byServer, ""},
			{"a tunnel", "RFC 9113 §8.5", "", both(set(":method", "CONNECT"), drop(":path"), drop(":scheme")), nil, "request_malformed", ""},
			{"the proof as a trailer", "RFC 9110 §6.5.1", "", both(drop("dpop"), add(field{"trailer", "dpop"})), []string{"dpop"}, "proof_missing", ""},
			{"the proof as a trailer too", "RFC 9110 §6.5.1", "", add(field{"trailer", "dpop"}), []string{"dpop"}, isAccepted, ""},
		} {
			t.Run(name+": "+row.attack+" ("+row.source+")", func(t *testing.T) {
				htu := row.htu
				if htu == "" {
					htu = url
				}
				token, proof := fresh(t, "GET", htu)
				mark := rand.Text()
				mine := []field{{"authorization", "DPoP " + token}, {"dpop", proof}}
				fields := row.change(append([]field{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", "/orders"}, {"x-mark", mark}}, mine...))
				var trailers []field
				for _, f := range mine {
					if slices.Contains(row.trailers, f.name) {
						trailers = append(trailers, f)
					}
				}
				want := row.reason
				if name == "HTTP/3.0" && row.by3 != "" {
					want = row.by3
				}
				header, err := send(t, g, roots, fields, trailers)
				switch {
				case want == byServer:
					if header["X-Reason"] != nil || header.Get(":status") == "200" {
						t.Errorf("answered %v", header)
					}
				case err != nil:
					t.Fatal(err)
				default:
					line := await(t, g.accessLog, func(e entry) bool { return slices.Equal(marks(e), []string{mark}) })
					reason, _ := line.field("dpop", "reason").(string)
					if (line["status"] == 200.0) != (want == isAccepted) || reason != want || line.field("request", "proto") != name {
						t.Errorf("answered %v because of %q by %v, want %q", line["status"], reason, line.field("request", "proto"), want)
					}
				}
				all := g.backend.requests()
				if (len(all) == 1) != (want == isAccepted) || len(all) > 1 {
					t.Fatalf("the backend got %d requests", len(all))
				}
				for _, one := range all {
					if len(one.header["Authorization"]) != 1 || one.header["Authorization"][0] != "Bearer "+token || one.header["Dpop"] != nil {
						t.Errorf("the backend got %v", one.header)
					}
				}
			})
		}
	}
}

// marks are the values of X-Mark in a line of the access log.
func marks(e entry) (values []string) {
	all, _ := e.field("request", "headers", "X-Mark").([]any)
	for _, value := range all {
		text, _ := value.(string)
		values = append(values, text)
	}
	return values
}
