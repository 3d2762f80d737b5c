package proof

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/beside"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// BenchmarkVerify is the verification of a proof by each kind of key, for a client
// that is known and for one that is not, beside the bare one.
func BenchmarkVerify(b *testing.B) {
	for _, name := range []string{"ES256", "EdDSA", "RS256", "PS256"} {
		key, err := jose.Generate(jose.AllAlgorithms().Find(name))
		if err != nil {
			b.Fatal(err)
		}
		text, err := Sign(key, Claims{Method: "GET", URL: "https://api.example.com/orders", Token: "token", IssuedAt: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		for what, signers := range map[string]*Signers{"known": NewSigners(), "new": nil} {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				beside.Compare(b, beside.Verification(b, name), 1, func() {
					p, f := signers.Verify(text, jose.AllAlgorithms())
					if f != nil {
						b.Fatal(f)
					}
					if signers != nil {
						signers.Remember(p)
					}
				})
			})
		}
	}
}

// BenchmarkCheckURL is the comparison of an htu with the URL of a request.
func BenchmarkCheckURL(b *testing.B) {
	for what, htu := range map[string]string{
		"as it is":    "https://api.example.com/orders/1234567890/items",
		"normalised":  "HTTPS://API.example.com:443/a/../orders/%31234567890/items?page=1",
		"escaped":     "https://api.example.com/orders/%E2%82%AC%2f1234567890/items",
		"of 2000 dot": "https://api.example.com/" + dots(1000),
	} {
		b.Run(what, func(b *testing.B) {
			here, err := ParseURI(htu)
			if err != nil {
				b.Fatal(err)
			}
			p, urls := &Proof{uri: htu}, []URI{here}
			b.ReportAllocs()
			beside.Compare(b, beside.Verification(b, "ES256"), 1, func() {
				if f := p.CheckURL(urls); f != nil {
					b.Fatal(f)
				}
			})
		})
	}
}

func dots(n int) string {
	text := make([]byte, 0, 2*n)
	for range n {
		text = append(text, "./"...)
	}
	return string(text)
}
