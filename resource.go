package caddydpop

import (
	"encoding/json"
	"net/http"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// Resource is what clients can learn of this protected resource (RFC 9728): a
// document at its well-known path, which challenges name. A handler that is only
// given a part of the requests, as by the matcher of its route, does not get those
// for the document: give their path a route with the same handler. In a Caddyfile a
// matcher of the directive itself does so.
type Resource struct {
	// The resource's identifier: the https URL by which clients know it. Its
	// document is at `/.well-known/oauth-protected-resource`, followed by its path.
	Identifier string `json:"identifier"`

	// Its name, for people.
	Name string `json:"name,omitempty"`

	// The URL of its documentation for developers.
	Documentation string `json:"documentation,omitempty"`

	// The URL of what clients may do with its data.
	Policy string `json:"policy,omitempty"`

	// The URL of its terms of service.
	TOS string `json:"tos,omitempty"`

	// Scopes that clients may ask for.
	Scopes []string `json:"scopes,omitempty"`

	// The path at which the public halves of the keys are published with which this
	// server shows issuers who it is (`private_key` of introspection), for them to
	// fetch. It is the `jwks_uri` of the document.
	JWKS string `json:"jwks,omitempty"`
}

const wellKnownResource = "/.well-known/oauth-protected-resource"

// published is what a handler answers by itself, without credentials.
type published struct {
	documentPath string
	documentURL  string
	document     []byte

	jwksPath string // empty: no keys are published
	keys     []func() *jose.PrivateKey
}

// urlAt returns a URL at the resource's origin.
func (r *Resource) urlAt(path string) (string, error) {
	identifier, err := proof.ParseURI(r.Identifier)
	return identifier.Scheme + "://" + identifier.Authority + path, err
}

// documentPath returns the path of the metadata (RFC 9728 §3.1): the well-known
// one before the identifier's own, which loses a slash only if that is all it is.
func (r *Resource) documentPath() (string, error) {
	identifier, err := proof.ParseURI(r.Identifier)
	if identifier.Path == "/" {
		identifier.Path = ""
	}
	return wellKnownResource + identifier.Path, err
}

// publish makes the document (RFC 9728 §2) of checked settings.
func (h *Handler) publish(settings *Handler) error {
	resource := settings.Resource
	if resource == nil {
		return nil
	}
	path, err := resource.documentPath()
	if err != nil {
		return &settingError{"resource.identifier", err}
	}
	h.published.documentPath, h.published.jwksPath = path, resource.JWKS
	if h.published.documentURL, err = resource.urlAt(path); err != nil {
		return err
	}
	document := map[string]any{
		"resource":                          resource.Identifier,
		"bearer_methods_supported":          []string{"header"},
		"dpop_signing_alg_values_supported": h.algorithms.Names(),
	}
	var issuers []string
	for _, config := range settings.Issuers {
		issuers = append(issuers, config.Issuer)
	}
	document["authorization_servers"] = issuers
	if h.mode == ModeStrict {
		document["dpop_bound_access_tokens_required"] = true
	}
	if len(resource.Scopes) > 0 {
		document["scopes_supported"] = resource.Scopes
	}
	for name, text := range map[string]string{
		"resource_name":          resource.Name,
		"resource_documentation": resource.Documentation,
		"resource_policy_uri":    resource.Policy,
		"resource_tos_uri":       resource.TOS,
	} {
		if text != "" {
			document[name] = text
		}
	}
	if resource.JWKS != "" {
		if document["jwks_uri"], err = resource.urlAt(resource.JWKS); err != nil {
			return err
		}
	}
	h.published.document, err = json.Marshal(document)
	return err
}

// servePublished answers a request for what is published, and reports whether it
// was one. It needs no credentials, and is for scripts of any origin.
func (h *Handler) servePublished(w http.ResponseWriter, req *request) (bool, error) {
	if h.published.document == nil || req.method != http.MethodGet && req.method != http.MethodHead {
		return false, nil
	}
	path, f := targetPath(req)
	if f != nil {
		return false, nil
	}
	mediaType, body := "application/json", h.published.document
	switch {
	case path == h.published.documentPath:
	case path == h.published.jwksPath && path != "":
		mediaType, body = "application/jwk-set+json", h.published.keySet()
	default:
		return false, nil
	}
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Cache-Control", "max-age=300")
	header.Set("Access-Control-Allow-Origin", "*")
	w.WriteHeader(http.StatusOK)
	if req.method == http.MethodHead {
		return true, nil
	}
	_, err := w.Write(body)
	return true, err
}

// keySet returns the public keys as they are now.
func (p *published) keySet() []byte {
	keys := []any{}
	type identity struct{ id, thumbprint string } // two files may name two keys alike
	seen := make(map[identity]bool)
	for _, get := range p.keys {
		key := get()
		if who := (identity{key.ID, key.Thumbprint}); !seen[who] {
			seen[who] = true
			keys = append(keys, key.PublicJWK())
		}
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		return []byte(`{"keys":[]}`)
	}
	return text
}
