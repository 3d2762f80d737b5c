package keyset

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client fetches an issuer's documents.
type Client struct {
	http      *http.Client
	allowHTTP bool
	timeout   time.Duration
}

// NewClient returns a client that trusts the roots, or the system's if roots is
// nil, and gives each call the timeout. Proxies are taken from the environment.
func NewClient(roots *x509.CertPool, allowHTTP bool, timeout time.Duration) *Client {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   timeout,
		ResponseHeaderTimeout: timeout,
	}
	return &Client{
		http:      &http.Client{Transport: transport, CheckRedirect: sameHost},
		allowHTTP: allowHTTP,
		timeout:   timeout,
	}
}

// sameHost lets a server redirect within itself alone: whoever can redirect
// elsewhere would choose whose keys are trusted.
func sameHost(request *http.Request, via []*http.Request) error {
	first := via[0].URL
	if request.URL.Host != first.Host || request.URL.Scheme != first.Scheme {
		return errors.New("redirected to another host")
	}
	if len(via) > 3 {
		return errors.New("redirected too often")
	}
	return nil
}

// CloseIdle closes the connections that are open and not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// CheckURL checks that a URL may be called: absolute, https, or http to the
// loopback interface or where that is allowed.
func CheckURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not an absolute URL without user information and fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return errors.New("neither https nor http")
	case !allowHTTP && !isLoopback(u.Hostname()):
		return errors.New("plain http to another machine, which only allow_http permits")
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
	if err := CheckURL(address, c.allowHTTP); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, 0, err // names the URL
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s: answered %s", address, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetSize+1))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", address, err)
	}
	if len(body) > maxSetSize {
		return nil, 0, fmt.Errorf("%s: answer larger than %d bytes", address, maxSetSize)
	}
	return body, freshFor(response.Header), nil
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
