package jose

import (
	"bytes"
	"testing"
)

func TestSign(t *testing.T) {
	for _, alg := range AllAlgorithms() {
		t.Run(alg.Name, func(t *testing.T) {
			private, err := Generate(alg)
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParseKey(object(t, string(private.Public)))
			if err != nil {
				t.Fatal(err)
			}
			if key.Thumbprint != private.Thumbprint {
				t.Errorf("thumbprint %s, not %s", private.Thumbprint, key.Thumbprint)
			}
			compact, err := private.Sign(map[string]any{"typ": "JWT"}, map[string]any{"sub": "\"<é>"})
			if err != nil {
				t.Fatal(err)
			}
			jws, err := ParseJWS(compact)
			if err != nil {
				t.Fatal(err)
			}
			if err := alg.Verify(key, jws.Input, jws.Signature); err != nil {
				t.Error(err)
			}
			name, _ := jws.Header.Get("alg")
			typ, _ := jws.Header.Get("typ")
			sub, _ := jws.Claims.Get("sub")
			if text, _ := sub.Text(); string(name) != `"`+alg.Name+`"` || string(typ) != `"JWT"` || text != "\"<é>" {
				t.Errorf("alg %s, typ %s, sub %s", name, typ, sub)
			}
			if bytes.Contains(private.Public, []byte(`"d"`)) {
				t.Errorf("the public half is %s", private.Public)
			}
		})
	}
}

func TestNewPrivateKeyRefusesOtherKinds(t *testing.T) {
	for _, kind := range kinds {
		for name, signer := range testKeys() {
			private, err := NewPrivateKey(find(t, kind.alg), signer)
			if (err == nil) != (name == kind.key) || (private != nil) != (err == nil) {
				t.Errorf("%s by a key on %s: %v, %v", kind.alg, name, private, err)
			}
		}
	}
}
