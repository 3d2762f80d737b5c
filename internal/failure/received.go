package failure

import "strings"

// Received is a challenge as a client reads it.
type Received struct {
	Scheme     string
	Parameters []Parameter
}

// Receive reads the values of WWW-Authenticate (RFC 9110 §11.6.1).
func Receive(values []string) []Received {
	var all []Received
	for _, value := range values {
		for _, challenge := range splitChallenges(value) {
			scheme, parameters, _ := strings.Cut(challenge, " ")
			received := Received{Scheme: scheme}
			for _, element := range splitList(parameters) {
				name, value, _ := strings.Cut(element, "=")
				received.Parameters = append(received.Parameters, Parameter{strings.TrimSpace(name), unquoted(strings.TrimSpace(value))})
			}
			all = append(all, received)
		}
	}
	return all
}

// unquoted returns what a token or quoted-string stands for (RFC 9110 §5.6.4).
func unquoted(value string) string {
	inner, ok := strings.CutPrefix(value, `"`)
	if !ok {
		return value
	}
	inner = strings.TrimSuffix(inner, `"`)
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// Get returns the value of a parameter, or nothing. Names ignore case.
func (r Received) Get(name string) string {
	for _, parameter := range r.Parameters {
		if strings.EqualFold(parameter.Name, name) {
			return parameter.Value
		}
	}
	return ""
}

// WantsNonce reports whether the client is to try again with the nonce that the
// answer has (RFC 9449 §9).
func (r Received) WantsNonce() bool {
	return strings.EqualFold(r.Scheme, string(DPoP)) && IsNonceError(r.Get("error"))
}

// IsNonceError reports whether an error of a token endpoint asks for a nonce too
// (RFC 9449 §8).
func IsNonceError(text string) bool { return code(text) == useDPoPNonce }

// Meaning says for people what a challenge asks of them.
func (r Received) Meaning() string {
	if meaning, ok := meanings[code(r.Get("error"))]; ok {
		return meaning
	}
	return "not an error that DPoP knows: see the server's documentation"
}

var meanings = map[code]string{
	noCode:             "credentials of this scheme are accepted, and it has found none",
	invalidRequest:     "the request itself is malformed, or has more than one token or proof",
	invalidToken:       "the token is not good here: it has expired, is for another resource or of another issuer, is no JWT, or is not bound to this key",
	invalidDPoPProof:   "the proof is not good here: look at the clock, the URL as the server knows it, and whether the proof was used before",
	useDPoPNonce:       "the proof must hold the nonce that came with the answer",
	insufficientScope:  "the token is good, but does not allow this: get one with the scope",
	insufficientAuthen: "the user must authenticate again, as acr_values and max_age say",
}
