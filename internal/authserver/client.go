// Package authserver asks an authorization server for what a resource server
// needs of it: its metadata (RFC 8414), its keys (RFC 7517), and what it knows of
// a token (RFC 7662). What was good goes on serving while the server fails, and
// no flood of requests here becomes a flood of calls there. For tools it also asks
// for a token (RFC 6749).
package authserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Trust is whom a Client talks to, and as whom.
type Trust struct {
	// Roots returns the roots to trust, the same pool for as long as they are the
	// same. Nil stands for the system's.
	Roots func() *x509.CertPool
	// Certificate returns the client's certificate for mutual TLS. Nil: none.
	Certificate func() (*tls.Certificate, error)
	// AllowHTTP allows plain http off the loopback interface.
	AllowHTTP bool
}

// Client makes calls to one authorization server.
type Client struct {
	trust   Trust
	timeout time.Duration

	mu          sync.Mutex
	http        *http.Client
	roots       *x509.CertPool // that http trusts
	certificate []byte         // that it shows; nil: none
}

// NewClient returns a client that gives each call the timeout. Proxies are taken
// from the environment.
func NewClient(trust Trust, timeout time.Duration) *Client {
	return &Client{trust: trust, timeout: timeout}
}

// client returns the HTTP client for the roots that are trusted now, and the
// certificate that is shown now. When either has changed, no connection is used
// that was opened with the old ones.
func (c *Client) client() *http.Client {
	roots, certificate := c.Roots(), c.leaf()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && roots == c.roots && bytes.Equal(certificate, c.certificate) {
		return c.http
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if certificate := c.trust.Certificate; certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate() }
	}
	c.roots, c.certificate = roots, certificate
	c.http = &http.Client{CheckRedirect: sameHost, Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: c.timeout}).DialContext,
		TLSClientConfig:       config,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   c.timeout,
		ResponseHeaderTimeout: c.timeout,
		// Go's own bound is 10 MiB, of which a hostile header makes ten times as much.
		MaxResponseHeaderBytes: 64 << 10,
	}}
	return c.http
}

// leaf returns the certificate that is shown now, or nil.
func (c *Client) leaf() []byte {
	if c.trust.Certificate == nil {
		return nil
	}
	certificate, err := c.trust.Certificate()
	if err != nil || len(certificate.Certificate) == 0 {
		return nil
	}
	return certificate.Certificate[0]
}

// Roots returns the roots that are trusted now; nil stands for the system's.
func (c *Client) Roots() *x509.CertPool {
	if c.trust.Roots == nil {
		return nil
	}
	return c.trust.Roots()
}

// sameHost lets a server redirect within itself alone: whoever can redirect
// elsewhere would choose whose keys are trusted.
func sameHost(request *http.Request, via []*http.Request) error {
	first := via[0].URL
	if via[0].Method != http.MethodGet {
		return errors.New("redirected a request that holds credentials")
	}
	if request.URL.Host != first.Host || request.URL.Scheme != first.Scheme {
		return errors.New("redirected to another host")
	}
	if len(via) > 3 {
		return errors.New("redirected too often")
	}
	return nil
}

// CloseIdle closes the connections that are open and not in use.
func (c *Client) CloseIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// ErrPlainHTTP says that a URL is of plain http, to another machine.
var ErrPlainHTTP = errors.New("plain http to another machine")

// CheckURL checks that a URL may be called: absolute, https, or http to the
// loopback interface or where that is allowed.
func CheckURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Contains(text, "#") { // an empty fragment is one
		return errors.New("not an absolute URL without user information and fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return errors.New("neither https nor http")
	case !allowHTTP && !isLoopback(u.Hostname()):
		return ErrPlainHTTP
	}
	return nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true // RFC 6761 §6.3
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// get fetches a document, and how long HTTP caching lets it serve.
func (c *Client) get(ctx context.Context, address string) ([]byte, time.Duration, error) {
	header := http.Header{"Accept": {"application/json, application/jwk-set+json"}}
	body, answered, err := c.call(ctx, http.MethodGet, address, header, nil)
	return body, freshFor(answered), err
}

// post sends a form, and returns the answer and its media type.
func (c *Client) post(ctx context.Context, address string, header http.Header, form url.Values) ([]byte, string, error) {
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, answered, err := c.call(ctx, http.MethodPost, address, header, strings.NewReader(form.Encode()))
	mediaType, _, _ := mime.ParseMediaType(answered.Get("Content-Type"))
	return body, mediaType, err
}

// call makes a request that must be answered 200 with a body of bounded size.
func (c *Client) call(ctx context.Context, method, address string, header http.Header, form io.Reader) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.do(ctx, method, address, header, form)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: answered %s", named(address), response.Status)
	}
	body, err := readBody(address, response)
	return body, response.Header, err
}

// do makes a request, whatever the answer.
func (c *Client) do(ctx context.Context, method, address string, header http.Header, form io.Reader) (*http.Response, error) {
	if err := CheckURL(address, c.trust.AllowHTTP); err != nil {
		return nil, fmt.Errorf("%s: %w", named(address), err)
	}
	request, err := http.NewRequestWithContext(ctx, method, address, form)
	if err != nil {
		return nil, err
	}
	request.Header = header
	response, err := c.client().Do(request)
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = fmt.Errorf("%s: %w", named(address), wrapped.Err) // it had the whole URL
	}
	return response, err
}

// named returns a URL as errors name it: without its query, which may be a secret.
func named(address string) string {
	before, _, _ := strings.Cut(address, "?")
	return before
}

func readBody(address string, response *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named(address), err)
	}
	if len(body) > maxSetSize {
		return nil, fmt.Errorf("%s: answer larger than %d bytes", named(address), maxSetSize)
	}
	return body, nil
}

// Bounds of how long a fetched set serves before it is refreshed, and the time
// for answers that do not say.
const (
	minFresh     = time.Minute
	maxFresh     = time.Hour
	defaultFresh = 10 * time.Minute
)

// freshFor reads how long an answer may be reused (RFC 9111 §4.2).
func freshFor(header http.Header) time.Duration {
	fresh := defaultFresh
	if expires, err := http.ParseTime(header.Get("Expires")); err == nil {
		if date, err := http.ParseTime(header.Get("Date")); err == nil {
			fresh = expires.Sub(date)
		}
	}
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-cache", "no-store":
			return minFresh
		case "max-age":
			fresh = seconds(strings.Trim(value, `"`)) - seconds(header.Get("Age"))
		}
	}
	return min(max(fresh, minFresh), maxFresh)
}

// seconds reads delta-seconds (RFC 9111 §1.2.2): too large a number is a long
// time, and what is no number is none.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 31)
	if errors.Is(err, strconv.ErrRange) {
		n = math.MaxInt32
	}
	return time.Duration(n) * time.Second
}
