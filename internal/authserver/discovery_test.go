package authserver

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWellKnown(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://a.example": {
			"https://a.example/.well-known/oauth-authorization-server",
			"https://a.example/.well-known/openid-configuration"},
		"https://a.example/": { // Auth0
			"https://a.example/.well-known/oauth-authorization-server",
			"https://a.example/.well-known/openid-configuration"},
		"https://a.example:8443/realms/main": { // RFC 8414 §3.1, OpenID Connect Discovery §4.1
			"https://a.example:8443/.well-known/oauth-authorization-server/realms/main",
			"https://a.example:8443/realms/main/.well-known/openid-configuration"},
		"https://a.example/realms/main/": {
			"https://a.example/.well-known/oauth-authorization-server/realms/main",
			"https://a.example/realms/main/.well-known/openid-configuration"},
		"https://a.example/a%2Fb": {
			"https://a.example/.well-known/oauth-authorization-server/a%2Fb",
			"https://a.example/a%2Fb/.well-known/openid-configuration"},
		"http://[::1]:8080": {
			"http://[::1]:8080/.well-known/oauth-authorization-server",
			"http://[::1]:8080/.well-known/openid-configuration"},
	} {
		if got := wellKnown(issuer); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", issuer, got, want)
		}
	}
}

// site is an issuer that notes which paths were asked for.
type site struct {
	*server
	mu    sync.Mutex
	paths []string
}

func newSite(t *testing.T, pages map[string]func(s *site) http.HandlerFunc) *site {
	s := new(site)
	s.server = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths = append(s.paths, r.URL.Path)
		s.mu.Unlock()
		if page, ok := pages[r.URL.Path]; ok {
			page(s)(w, r)
			return
		}
		w.WriteHeader(404)
	})
	return s
}

type page = func(s *site) http.HandlerFunc

// metadata is the document of the issuer at a path. A jwks_uri that begins with
// a slash is the site's own.
func metadata(issuerPath, jwksURI string) page {
	return func(s *site) http.HandlerFunc {
		address := jwksURI
		if strings.HasPrefix(address, "/") {
			address = s.URL + address
		}
		return serve(`{"issuer":"` + s.URL + issuerPath + `","jwks_uri":"` + address + `","x":[{}]}`)
	}
}

func fixed(document string, headers ...string) page {
	return func(*site) http.HandlerFunc { return serve(document, headers...) }
}

func TestFromIssuer(t *testing.T) {
	const (
		oauth  = "/.well-known/oauth-authorization-server"
		openID = "/.well-known/openid-configuration"
	)
	keys := fixed(kids("k"), "Cache-Control", "max-age=120")
	for _, row := range []struct {
		name, issuer, discovery string // paths
		pages                   map[string]page
		asked                   []string
		ok                      bool
	}{
		{"RFC 8414", "", "", map[string]page{oauth: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, "/jwks"}, true},
		{"OpenID Connect", "", "", map[string]page{openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},
		{"both: RFC 8414 first", "", "", map[string]page{oauth: metadata("", "/jwks"), openID: metadata("", "/other"), "/jwks": keys},
			[]string{oauth, "/jwks"}, true},
		{"a trailing slash", "/", "", map[string]page{oauth: metadata("/", "/jwks"), "/jwks": keys}, []string{oauth, "/jwks"}, true},
		{"a trailing slash, OpenID Connect", "/", "", map[string]page{openID: metadata("/", "/jwks"), "/jwks": keys},
			[]string{oauth, openID, "/jwks"}, true},
		{"a path", "/realms/main", "", map[string]page{oauth + "/realms/main": metadata("/realms/main", "/jwks"), "/jwks": keys},
			[]string{oauth + "/realms/main", "/jwks"}, true},
		{"a path, OpenID Connect", "/realms/main", "", map[string]page{"/realms/main" + openID: metadata("/realms/main", "/jwks"), "/jwks": keys},
			[]string{oauth + "/realms/main", "/realms/main" + openID, "/jwks"}, true},
		{"a path and a trailing slash", "/t/", "", map[string]page{"/t" + openID: metadata("/t/", "/jwks"), "/jwks": keys},
			[]string{oauth + "/t", "/t" + openID, "/jwks"}, true},

		// After any answer that is not a valid document, the next form.
		{"200 with HTML", "", "", map[string]page{oauth: fixed("<!doctype html>", "Content-Type", "text/html"), openID: metadata("", "/jwks"), "/jwks": keys},
			[]string{oauth, openID, "/jwks"}, true},
		{"another's document", "", "", map[string]page{oauth: fixed(`{"issuer":"https://evil.example","jwks_uri":"https://evil.example/jwks"}`),
			openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},
		{"no jwks_uri", "", "", map[string]page{oauth: func(s *site) http.HandlerFunc { return serve(`{"issuer":"` + s.URL + `"}`) },
			openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},
		{"jwks_uri by plain http, then a good one", "", "", map[string]page{oauth: metadata("", "http://keys.example/jwks"),
			openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},
		{"a document too large", "", "", map[string]page{oauth: fixed(`{"pad":"` + strings.Repeat("a", 512<<10) + `"}`),
			openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},
		{"a redirect to another host", "", "", map[string]page{
			oauth: func(*site) http.HandlerFunc {
				return http.RedirectHandler("https://evil.example/", http.StatusFound).ServeHTTP
			},
			openID: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID, "/jwks"}, true},

		{"none", "", "", nil, []string{oauth, openID}, false},
		// RFC 8414 §3.3: issuer must be identical.
		{"issuer lacks its slash", "/", "", map[string]page{oauth: metadata("", "/jwks"), "/jwks": keys}, []string{oauth, openID}, false},
		{"issuer has a slash more", "", "", map[string]page{oauth: metadata("/", "/jwks"), "/jwks": keys}, []string{oauth, openID}, false},
		{"issuer of another path", "/a", "", map[string]page{oauth + "/a": metadata("/b", "/jwks"), "/jwks": keys},
			[]string{oauth + "/a", "/a" + openID}, false},
		{"issuer no string", "", "", map[string]page{oauth: fixed(`{"issuer":null,"jwks_uri":"/jwks"}`), "/jwks": keys}, []string{oauth, openID}, false},
		{"issuer missing", "", "", map[string]page{oauth: fixed(`{"jwks_uri":"/jwks"}`)}, []string{oauth, openID}, false},
		{"issuer repeated", "", "", map[string]page{oauth: func(s *site) http.HandlerFunc {
			return serve(`{"issuer":"https://evil.example","issuer":"` + s.URL + `","jwks_uri":"` + s.URL + `/jwks"}`)
		}, "/jwks": keys}, []string{oauth, openID}, false},
		{"jwks_uri by plain http", "", "", map[string]page{oauth: metadata("", "http://keys.example/jwks")}, []string{oauth, openID}, false},
		{"jwks_uri relative", "", "", map[string]page{oauth: metadata("", "jwks"), "/jwks": keys}, []string{oauth, openID}, false},
		{"jwks_uri no string", "", "", map[string]page{oauth: func(s *site) http.HandlerFunc {
			return serve(`{"issuer":"` + s.URL + `","jwks_uri":["` + s.URL + `/jwks"]}`)
		}}, []string{oauth, openID}, false},
		{"no set there", "", "", map[string]page{oauth: metadata("", "/jwks")}, []string{oauth, "/jwks"}, false},
		{"no set but HTML", "", "", map[string]page{oauth: metadata("", "/jwks"), "/jwks": fixed("<html>")}, []string{oauth, "/jwks"}, false},

		{"discovery_url", "/t", "/d", map[string]page{"/d": metadata("/t", "/jwks"), "/jwks": keys, oauth + "/t": metadata("/t", "/other")},
			[]string{"/d", "/jwks"}, true},
		{"discovery_url alone counts", "", "/d", map[string]page{oauth: metadata("", "/jwks"), openID: metadata("", "/jwks"), "/jwks": keys},
			[]string{"/d"}, false},
		{"discovery_url of another issuer", "", "/d", map[string]page{"/d": metadata("/x", "/jwks"), "/jwks": keys}, []string{"/d"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSite(t, row.pages)
			discovery := ""
			if row.discovery != "" {
				discovery = s.URL + row.discovery
			}
			set, fresh, err := KeysFromIssuer(newTestClient(t), s.URL+row.issuer, discovery)(t.Context())
			if (err == nil) != row.ok {
				t.Errorf("error %v, want success: %t", err, row.ok)
			}
			if row.ok && (set == nil || set.Len() != 1 || fresh != 2*time.Minute) {
				t.Errorf("got %v, fresh for %v: not the set's own", set, fresh)
			}
			if !slices.Equal(s.paths, row.asked) {
				t.Errorf("asked for %v, want %v", s.paths, row.asked)
			}
		})
	}
}

// An issuer may move its keys: metadata is read again with each fetch.
func TestFromIssuerReadsMetadataAgain(t *testing.T) {
	pages := map[string]page{
		"/.well-known/oauth-authorization-server": metadata("", "/old"),
		"/old": fixed(kids("old")), "/new": fixed(kids("new", "newer")),
	}
	s := newSite(t, pages)
	source := KeysFromIssuer(newTestClient(t), s.URL, "")
	for path, want := range map[string]int{"/old": 1, "/new": 2} {
		pages["/.well-known/oauth-authorization-server"] = metadata("", path)
		if set, _, err := source(t.Context()); err != nil || set.Len() != want {
			t.Errorf("%s: got %v, %v", path, set, err)
		}
	}
}

func TestFromURL(t *testing.T) {
	s := newServer(t, serve(kids("a", "b"), "Cache-Control", "max-age=90"))
	source := KeysFromURL(newTestClient(t), s.URL)
	if set, fresh, err := source(t.Context()); err != nil || set.Len() != 2 || fresh != 90*time.Second {
		t.Errorf("got %v, %v, %v", set, fresh, err)
	}
	s.respond(serve(`{"error":"down"}`))
	if set, _, err := source(t.Context()); set != nil || err == nil || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("got %v, %v: want an error that names the URL", set, err)
	}
	s.respond(status(500))
	if set, _, err := source(t.Context()); set != nil || err == nil || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("got %v, %v: want an error that names the URL", set, err)
	}
}
