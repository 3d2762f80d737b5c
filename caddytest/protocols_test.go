package caddytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// certificate writes a certificate for 127.0.0.1 and its key, and returns the
// files and a pool that trusts it.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "private.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, text := range map[string][]byte{
		certFile: certPEM,
		keyFile:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
}

// The same over HTTP/1.1, HTTP/2 and HTTP/3; the access log proves which it was.
func TestProtocols(t *testing.T) {
	certFile, keyFile, roots := certificate(t)
	g := serve(t, setup{address: "https://127.0.0.1:{{PORT}}", site: "tls " + certFile + " " + keyFile + "\n{{DPOP}}\nreverse_proxy {{BACKEND}}"})
	trust := func() *tls.Config { return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} }
	h3 := &http3.Transport{TLSClientConfig: trust()}
	defer h3.Close()
	h1 := &http.Transport{TLSClientConfig: trust()}
	h1.Protocols = new(http.Protocols)
	h1.Protocols.SetHTTP1(true)
	defer h1.CloseIdleConnections()
	h2 := &http.Transport{TLSClientConfig: trust(), ForceAttemptHTTP2: true}
	defer h2.CloseIdleConnections()

	for _, row := range []struct {
		proto     string
		transport http.RoundTripper
	}{{"HTTP/1.1", h1}, {"HTTP/2.0", h2}, {"HTTP/3.0", h3}} {
		t.Run(row.proto, func(t *testing.T) {
			client := &http.Client{Transport: row.transport, Timeout: 10 * time.Second}
			path := "/" + row.proto[5:]
			c := good(t, g.url+path)
			c.sendBy(t, client).expect(t, 200)
			if got := g.backend.one(t); got.header.Get("Dpop") != "" || got.header.Get("Authorization")[:7] != "Bearer " {
				t.Errorf("the backend got %v", got.header)
			}
			c.sendBy(t, client).expect(t, 401, "DPoP invalid_dpop_proof")
			call{url: g.url + path}.sendBy(t, client).expect(t, 401, "DPoP")
			// by plain http it would be another URL
			token := accessToken(t, nil)
			call{url: g.url + path, header: http.Header{
				"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", "http"+g.url[5:]+path, token, nil)},
			}}.sendBy(t, client).expect(t, 401, "DPoP invalid_dpop_proof")
			g.backend.none(t)
			line := await(t, g.accessLog, func(e entry) bool { return e.field("request", "uri") == path })
			if line.field("request", "proto") != row.proto {
				t.Errorf("the access log says %v", line.field("request", "proto"))
			}
		})
	}
}
