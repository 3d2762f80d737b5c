package jose

import (
	"encoding/json"
	"sync"
	"testing"
	"unicode/utf8"
)

var fuzzKeys = sync.OnceValue(func() map[string]*PrivateKey {
	keys := make(map[string]*PrivateKey)
	for _, alg := range algorithms {
		key, err := Generate(alg)
		if err != nil {
			panic(err)
		}
		keys[alg.Name] = key
	}
	return keys
})

// What is signed verifies, by its own key and algorithm alone, and says what was
// signed; with any byte changed it does not.
func FuzzSign(f *testing.F) {
	for _, alg := range algorithms {
		f.Add(alg.Name, "text", uint16(0), byte(1))
		f.Add(alg.Name, "\u2028\x00\"\\é", uint16(100), byte(0x20))
	}
	f.Fuzz(func(t *testing.T, name, text string, at uint16, change byte) {
		key := fuzzKeys()[name]
		if key == nil || !utf8.ValidString(text) || len(text) > 1000 {
			return
		}
		compact, err := key.Sign(map[string]any{"typ": "x"}, map[string]any{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		jws, err := ParseJWS(compact)
		if err != nil {
			t.Fatalf("%q: %v", compact, err)
		}
		value, _ := jws.Claims.Get("text")
		if got, ok := value.Text(); !ok || got != text {
			t.Fatalf("%q was signed as %q", text, got)
		}
		public := parsedPublic(t, key)
		for _, alg := range algorithms {
			good := alg.Verify(public, jws.Input, jws.Signature) == nil
			if want := alg.Name == name || alg.family == familyEd25519 && key.Algorithm.family == familyEd25519; good != want {
				t.Fatalf("signed by %s, verified by %s: %t", name, alg.Name, good)
			}
		}
		if change == 0 {
			return
		}
		// one byte of the text changed
		changed := []byte(compact)
		changed[int(at)%len(changed)] ^= change
		if jws, err := ParseJWS(string(changed)); err == nil && key.Algorithm.Verify(public, jws.Input, jws.Signature) == nil {
			t.Fatalf("%q verifies as well as %q", changed, compact)
		}
	})
}

func parsedPublic(t *testing.T, key *PrivateKey) *Key {
	t.Helper()
	object, err := ParseObject(key.Public)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParseKey(object)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// A private key that is read can sign, and what it publishes is no private key.
func FuzzParsePrivateKey(f *testing.F) {
	for _, key := range fuzzKeys() {
		private, err := key.PrivateJWK()
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(private)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add([]byte(key.Public))
	}
	f.Add([]byte(`{"kty":"oct","k":"AQ"}`))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAQ==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = ParsePublicKey(text)
		key, err := ParsePrivateKey(text)
		if err != nil {
			return
		}
		signature, err := key.sign("input")
		if err != nil || key.Algorithm.Verify(parsedPublic(t, key), "input", signature) != nil {
			t.Fatalf("%s: was read, and does not sign: %v", text, err)
		}
		for _, name := range secretMembers {
			if _, ok := key.PublicJWK()[name]; ok {
				t.Fatalf("%s: publishes %s", text, name)
			}
		}
	})
}
