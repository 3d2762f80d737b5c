// Package beside has benchmarks measure themselves beside the bare verification of a
// signature by the standard library, which is what a request cannot cost less than.
package beside

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"
	"time"
)

// Compare measures the processor time that work takes, as so many times that of so
// many calls of bare: in turns, so that the ratio holds while the machine's speed
// drifts, and on one that does other things too.
func Compare(b *testing.B, bare func(), times int, work func()) {
	b.Helper()
	const batch = 64
	work() // the first one makes what is there from then on
	var ours, theirs time.Duration
	calls, batches, began := 0, 0, processorTime()
	turn := func() {
		ours += processorTime() - began
		b.StopTimer() // which takes time of its own
		began = processorTime()
		for range batch {
			bare()
		}
		theirs += processorTime() - began
		batches++
		b.StartTimer()
		began = processorTime()
	}
	for b.Loop() {
		work()
		if calls++; calls%batch == 0 {
			turn()
		}
	}
	turn()
	bareTime := float64(theirs) / float64(batches*batch)
	b.ReportMetric(float64(ours)/float64(calls)/bareTime/float64(times), "of-bare")
	b.ReportMetric(bareTime, "bare-ns")
}

// signed is how much is signed of a proof for "https://api.example.com/orders", which
// holds the key, in bytes.
var signed = map[string]int{"ES256": 428, "EdDSA": 370, "RS256": 768, "PS256": 768}

// Verification is what the standard library does for one signature of a proof: to hash
// what is signed, and to verify.
func Verification(b *testing.B, algorithm string) func() {
	b.Helper()
	message := make([]byte, signed[algorithm])
	digest := sha256.Sum256(message)
	must := func(signature []byte, err error) []byte {
		if err != nil {
			b.Fatal(err)
		}
		return signature
	}
	var verify func() bool
	switch algorithm {
	case "ES256":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		signature := must(ecdsa.SignASN1(rand.Reader, key, digest[:]))
		verify = func() bool {
			digest := sha256.Sum256(message)
			return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature)
		}
	case "EdDSA":
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		signature := ed25519.Sign(private, message)
		verify = func() bool { return ed25519.Verify(public, message, signature) }
	default:
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			b.Fatal(err)
		}
		if algorithm == "PS256" {
			signature := must(rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], nil))
			verify = func() bool {
				digest := sha256.Sum256(message)
				return rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest[:], signature, nil) == nil
			}
			break
		}
		signature := must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]))
		verify = func() bool {
			digest := sha256.Sum256(message)
			return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) == nil
		}
	}
	return func() {
		if !verify() {
			b.Fatal("does not verify")
		}
	}
}
