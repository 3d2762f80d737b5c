package authserver

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	fuzzEC  = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	fuzzEd  = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	fuzzRSA = `{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W` +
		`-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyr` +
		`dkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}`
)

// with returns a JWK with members in front of its own.
func with(members, jwk string) string { return "{" + members + "," + jwk[1:] }

// FuzzParseKeySet holds that no key set stops the process, and that every key that
// is taken from one is sound, public, meant for signatures, and the key that it says.
func FuzzParseKeySet(f *testing.F) {
	for _, keys := range []string{
		"", fuzzEC, fuzzEd, fuzzRSA, fuzzEC + "," + fuzzRSA, with(`"kid":"1","use":"sig","alg":"ES256"`, fuzzEC), with(`"use":"enc"`, fuzzEC), with(`"key_ops":["verify"]`, fuzzEd),
		with(`"key_ops":["sign"]`, fuzzEd), with(`"d":"AQ"`, fuzzEC), with(`"p":"AQ","q":"AQ"`, fuzzRSA), with(`"kid":"1","kid":"2"`, fuzzEC), with(`"kid":1`, fuzzEC),
		with(`"x5c":["AQ=="],"x5u":"https://a.example","x5t":"AQ","x5t#S256":"AQ"`, fuzzEC), with(`"alg":"none"`, fuzzEC), with(`"KTY":"oct","k":"AQ"`, fuzzEC),
		strings.Replace(fuzzRSA, "AQAB", "AQ", 1), strings.Replace(fuzzRSA, "AQAB", "____________", 1), strings.Replace(fuzzEC, "P-256", "P-521", 1),
		`{"kty":"oct","k":"AQ"}`, `{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`, `{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		`{"kty":"OKP","crv":"Ed25519","x":"AA"}`, `{"kty":"EC","crv":"P-256","x":"","y":""}`, `{"kty":"RSA","n":"","e":""}`, "null", "1", `"x"`, "[]",
	} {
		f.Add([]byte(`{"keys":[` + keys + `]}`))
	}
	f.Add([]byte(`{"keys":null}`))
	f.Add([]byte(`{"KEYS":[` + fuzzEC + `]}`))
	f.Add([]byte(fuzzEC))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := ParseKeySet(text)
		if err != nil {
			return
		}
		if set.Len() > maxKeys {
			t.Fatalf("%d keys", set.Len())
		}
		var document map[string]json.RawMessage
		var all []json.RawMessage
		if err := json.Unmarshal(text, &document); err != nil || json.Unmarshal(document["keys"], &all) != nil || len(all) < set.Len() {
			t.Fatalf("%s: %d keys of %d, %v", text, set.Len(), len(all), err)
		}
		for _, key := range set.keys {
			if _, err := jose.NewKey(key.key.Public); err != nil {
				t.Fatalf("%s: a key is not sound: %v", text, err)
			}
			fits := false
			for _, alg := range jose.AllAlgorithms() {
				fits = fits || alg.Fits(key.key)
				found, known := set.find(key.id, alg)
				if len(found) > maxCandidates || key.id != "" && !known {
					t.Fatalf("%s: %d keys for %q and %s, known %t", text, len(found), key.id, alg.Name, known)
				}
				for _, one := range found {
					if !alg.Fits(one) || alg.Verify(one, "input", make([]byte, 64)) == nil {
						t.Fatalf("%s: a key that does not fit %s", text, alg.Name)
					}
				}
			}
			if !fits {
				t.Fatalf("%s: a key that fits no algorithm", text)
			}
		}
		for _, raw := range all {
			if _, ok := parseKey(raw); ok {
				isPublic(t, raw)
			}
		}
	})
}

// isPublic checks that a key is what encoding/json and jose make of its text, too.
func isPublic(t *testing.T, raw []byte) {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := members[name]; ok {
			t.Fatalf("%s: taken with %s", raw, name)
		}
	}
	if use, ok := members["use"]; ok && use != "sig" && use != "" {
		t.Fatalf("%s: taken for use %v", raw, use)
	}
	object, err := jose.ParseObject(raw)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	strict, err := jose.ParseKey(object)
	if err != nil {
		return // jwx reads some things that a client may not send
	}
	lenient, err := jwk.ParseKey(raw)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	sum, err := lenient.Thumbprint(crypto.SHA256)
	if want, _ := jose.DecodeBase64URL(strict.Thumbprint); err != nil || string(want) != string(sum) {
		t.Fatalf("%s: another key to jwx, %v", raw, err)
	}
}

// FuzzReadMetadata holds that a document counts only if it is the issuer's by every
// reading of it.
func FuzzReadMetadata(f *testing.F) {
	const issuer = "https://issuer.example"
	for _, seed := range []string{
		`{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/jwks"}`, `{"issuer":"https:\/\/issuer.example","jwks_uri":"\u0068ttps://a"}`,
		`{"issuer":"https://issuer.example","issuer":"x","jwks_uri":"y"}`, `{"Issuer":"https://issuer.example","jwks_uri":"y"}`, `{"issuer":"https://issuer.example"}`,
		`{"issuer":["https://issuer.example"],"jwks_uri":1}`, `[]`, `<html>`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := readMetadata(text, issuer, "jwks_uri")
		if err != nil {
			return
		}
		var document map[string]any
		if err := json.Unmarshal(text, &document); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
			t.Fatalf("%s: %v", text, err)
		} else if err == nil && (document["issuer"] != issuer || document["jwks_uri"] != found) {
			t.Fatalf("%s: %q of %v", text, found, document["issuer"])
		}
	})
}

// FuzzWellKnown holds that whatever passes for an issuer's URL, nobody else is
// asked for its metadata.
func FuzzWellKnown(f *testing.F) {
	for _, seed := range []string{"https://issuer.example", "https://issuer.example/", "https://issuer.example/a/b/", "https://issuer.example:8443/a%2Fb", "http://[::1]:80/x", "https://a//", "https://a/.."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, issuer string) {
		if CheckURL(issuer, false) != nil || strings.Contains(issuer, "?") {
			return // no setting has it
		}
		own, err := url.Parse(issuer)
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range wellKnown(issuer) {
			u, err := url.Parse(address)
			if err != nil || CheckURL(address, false) != nil || u.Host != own.Host || u.Scheme != own.Scheme || u.RawQuery != "" {
				t.Fatalf("the metadata of %q is looked for at %q: %v", issuer, address, err)
			}
		}
	})
}

// FuzzFreshFor holds that no header of an answer has keys serve for longer than an
// hour, or fetched more often than once a minute.
func FuzzFreshFor(f *testing.F) {
	f.Add("max-age=60", "", "", "")
	f.Add("no-store, max-age=99999999999999999999", "1", "", "")
	f.Add(`max-age="5" , public`, "-1", "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMT")
	f.Fuzz(func(t *testing.T, control, age, date, expires string) {
		header := http.Header{"Cache-Control": {control}, "Age": {age}, "Date": {date}, "Expires": {expires}}
		if fresh := freshFor(header); fresh < minFresh || fresh > maxFresh {
			t.Fatalf("%v: %v", header, fresh)
		}
	})
}

// oneKey finds one key, whatever is asked for.
type oneKey struct{ key *jose.Key }

func (o oneKey) Find(context.Context, string, *jose.Algorithm) (Found, error) {
	return Found{Keys: []*jose.Key{o.key}}, nil
}
func (oneKey) Serving(context.Context) (*KeySet, error) { return nil, nil }
func (oneKey) Status() KeyStatus                        { return KeyStatus{} }

// FuzzReadAnswer holds that what is taken for an issuer's answer about a token says
// so by every reading of it, and where answers must be signed is one that the
// issuer has signed.
func FuzzReadAnswer(f *testing.F) {
	key, err := jose.Generate(jose.AllAlgorithms().Find("EdDSA"))
	if err != nil {
		f.Fatal(err)
	}
	public, err := jose.ParsePublicKey(key.Public)
	if err != nil {
		f.Fatal(err)
	}
	const media = "application/token-introspection+jwt"
	signed := make(map[string]bool)
	for _, claims := range []map[string]any{
		{"iss": "https://issuer.example", "aud": "gateway", "iat": 1700000000, "token_introspection": map[string]any{"active": true, "sub": "a"}},
		{"iss": "https://issuer.example", "aud": []string{"x", "gateway"}, "iat": 1700000000, "exp": 1, "token_introspection": map[string]any{"active": true}},
		{"iss": "https://other.example", "aud": "gateway", "iat": 1700000000, "token_introspection": map[string]any{"active": false}},
		{"token_introspection": true},
	} {
		text, err := key.Sign(map[string]any{"typ": "token-introspection+jwt"}, claims)
		if err != nil {
			f.Fatal(err)
		}
		signed[text] = true
		f.Add([]byte(text), media)
	}
	for _, seed := range []string{
		`{"active":true}`, `{"active":false,"active":true}`, `{"active":"true"}`, `{"Active":true}`, `{"active":true,"exp":1e400}`, `{"active":true}{}`, `[]`, `null`, ``,
		`{"active": true , "cnf":{"jkt":"x"},"exp":-1}`,
	} {
		f.Add([]byte(seed), "application/json")
	}
	plain := NewIntrospector(Introspection{Client: NewClient(Trust{}, 0), MaxInFlight: 1})
	strict := NewIntrospector(Introspection{Client: NewClient(Trust{}, 0), MaxInFlight: 1, Issuer: "https://issuer.example",
		Signed: &Signed{Keys: oneKey{public}, Algorithms: jose.AllAlgorithms(), ClientID: "gateway"}})
	f.Fuzz(func(t *testing.T, body []byte, mediaType string) {
		if answer, err := plain.read(t.Context(), body, mediaType); err == nil {
			var want map[string]any
			if err := json.Unmarshal(body, &want); err == nil && want["active"] != answer.Active {
				t.Fatalf("%s: active %t", body, answer.Active)
			}
			if answer.size < len(body) || fmt.Sprint(answer.expires) == "NaN" {
				t.Fatalf("%s: of %d bytes, expires %v", body, answer.size, answer.expires)
			}
		}
		if _, err := strict.read(t.Context(), body, mediaType); err == nil && !signed[string(body)] {
			t.Fatalf("%s: the issuer has not signed it", body)
		}
	})
}
