package caddytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// The examples are formatted, say what they are for, load, and have a JSON twin
// that says the same.
func TestExamples(t *testing.T) {
	examples, err := filepath.Abs("../examples")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // with the files that examples name
	writeKey(t, "gateway.pem")
	for name, value := range map[string]string{
		"DPOP_MODE": "report", "INTROSPECTION_SECRET": "a secret", "DPOP_NONCE_SECRET": "a secret of thirty-two characters", "REDIS_PASSWORD": "another",
	} {
		t.Setenv(name, value)
	}
	found := 0
	err = filepath.WalkDir(examples, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "Caddyfile" || file == filepath.Join(examples, "demo", "Caddyfile") {
			return err // the demo's is a part of the program, which puts in addresses
		}
		found++
		name, err := filepath.Rel(examples, filepath.Dir(file))
		t.Run(name, func(t *testing.T) { checkExample(t, file) })
		return err
	})
	if err != nil || found < 9 {
		t.Fatalf("found %d examples, %v", found, err)
	}
}

func checkExample(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# ") {
		t.Error("no comment at its head says what it is for")
	}
	got, ok := adapt(t, string(text))
	if !ok {
		t.Fatal(got)
	}
	got = strings.ReplaceAll(got, `\u003e`, ">") // as people write it
	twin := filepath.Join(filepath.Dir(file), "caddy.json")
	if *update {
		if err := os.WriteFile(twin, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(twin)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the Caddyfile says, which -update writes there:\n%s", twin, got)
	}
	if err := caddy.Validate(decoded(t, string(want))); err != nil {
		t.Error(err)
	}
}

// writeKey writes a new P-256 key as PEM.
func writeKey(t *testing.T, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
