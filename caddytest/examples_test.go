package caddytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	caddydpop "github.com/caddy-dpop/caddy-dpop"
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
	certificate, key, _ := certificate(t)
	for name, from := range map[string]string{"roots.pem": certificate, "client.pem": certificate, "client-key.pem": key} {
		if err := os.Link(from, name); err != nil {
			t.Fatal(err)
		}
	}
	keys := call{url: issuer.URL + "/jwks"}.send(t)
	if err := os.WriteFile("partner-keys.json", []byte(keys.text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"INTROSPECTION_SECRET": "a secret", "REDIS_PASSWORD": "another", "INTROSPECTION_TOKEN": "a token",
		"DPOP_NONCE_SECRET": "a secret of thirty-two characters", "DPOP_NONCE_SECRET_BEFORE": "another of thirty-two characters",
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
	if err != nil || found < 12 {
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

// The example of all settings has every one, as a Caddyfile and as JSON, and the
// README and the syntax in the Caddyfile's parser have its name.
func TestAllSettings(t *testing.T) {
	texts := make(map[string]string)
	for _, file := range []string{"../examples/all-settings/Caddyfile", "../examples/all-settings/caddy.json", "../README.md", "../caddyfile.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	settings := make(map[string]bool)
	for _, of := range []any{caddydpop.Handler{}, caddydpop.MemoryReplay{}, caddydpop.RedisReplay{}} {
		settingsOf(reflect.TypeOf(of), settings)
	}
	if len(settings) < 60 {
		t.Errorf("only %d settings", len(settings))
	}
	for name := range settings {
		if !strings.Contains(texts["../examples/all-settings/caddy.json"], `"`+name+`":`) {
			t.Errorf("no %s in the JSON of all settings", name)
		}
		if !regexp.MustCompile("[`\"]" + name + `\b`).MatchString(texts["../README.md"]) {
			t.Errorf("no %s in the README", name)
		}
	}
	_, syntax, _ := strings.Cut(texts["../caddyfile.go"], "Syntax:\n//\n")
	syntax, _, _ = strings.Cut(syntax, "\n//\n//")
	words := regexp.MustCompile(`(?m)^//\t +([a-z_]+)`).FindAllStringSubmatch(syntax, -1)
	if len(words) < 55 {
		t.Errorf("only %d subdirectives in the syntax", len(words))
	}
	for _, word := range words {
		if !regexp.MustCompile(`(?m)^\t+` + word[1] + `\b`).MatchString(texts["../examples/all-settings/Caddyfile"]) {
			t.Errorf("no %s in the Caddyfile of all settings", word[1])
		}
	}
}

// settingsOf collects the JSON names of a structure's settings, and of those in it.
func settingsOf(of reflect.Type, into map[string]bool) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.Contains(of.PkgPath(), "caddy-dpop") {
		return
	}
	for i := range of.NumField() {
		if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			into[name] = true
			settingsOf(of.Field(i).Type, into)
		}
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
