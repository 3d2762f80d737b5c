package inspect

import (
	"slices"
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// tokenChecks are those of a token that can be taken apart, in their order.
var tokenChecks = []string{"token extensions", "token kid", "token iss", "token alg", "token signature",
	"token typ", "token kind", "token exp", "token nbf", "token iat", "token aud"}

// bindingChecks are those of a token and the key of a proof.
var bindingChecks = []string{"token cnf", "binding"}

// accessToken is steps 7 and 8.
func (i *inspection) accessToken() {
	if i.captured.Authorization == nil {
		return // see credentials
	}
	every := slices.Concat([]string{"token syntax"}, tokenChecks, bindingChecks)
	if i.token == "" {
		i.skipAll("there is not one token", every...)
		i.skipAll("there is not one token", i.demanded()...)
		return
	}
	if token.IsOpaque(i.token) {
		i.skip("token syntax", "a JWT", "an opaque token", "its issuer alone knows what it says: a site that does not introspect refuses it")
		i.skipAll("its issuer alone knows", bindingChecks...)
		i.skipAll("its issuer alone knows", i.demanded()...)
		return
	}
	parsed, f := token.Split(i.token)
	i.judge(stageTokenHeader, "token syntax", "a JWT", count(len(i.token), "byte"), f)
	if f != nil {
		i.skipAll("the token cannot be taken apart", every[1:]...)
		i.skipAll("the token cannot be taken apart", i.demanded()...)
		return
	}
	i.show("Token header", parsed.Header())
	i.show("Token claims", parsed.Claims())
	i.tokenSignature(parsed)
	i.tokenClaims(parsed)
	i.binding(parsed.Claims())
	i.demands(parsed.Claims())
}

// tokenSignature is the part of step 7 by which a token is its issuer's.
func (i *inspection) tokenSignature(parsed *token.Parsed) {
	header, rules := parsed.Header(), &i.site.Rules
	extended, noAlgorithm, oddKeyID := parsed.CheckExtensions(), parsed.ReadAlgorithm(), parsed.ReadKeyID()
	i.judge(stageTokenHeader, "token extensions", "no crit, b64, zip", names(header, "crit", "b64", "zip"), extended)
	i.judge(stageTokenHeader, "token kid", "a string, if there", found(header, "kid"), oddKeyID)
	if iss := found(parsed.Claims(), "iss"); rules.Issuer == "" {
		i.skip("token iss", "", iss, "no --issuer")
	} else {
		i.judge(stageToken, "token iss", rules.Issuer, iss, rules.CheckIssuer(parsed.Claims()))
	}
	const signature = "by a key of the issuer"
	algorithm := "an asymmetric algorithm"
	if len(i.site.Signatures) < len(jose.AllAlgorithms()) {
		algorithm = words(i.site.Signatures.Names())
	}
	if noAlgorithm != nil {
		i.judge(stageTokenHeader, "token alg", algorithm, found(header, "alg"), noAlgorithm)
	}
	if extended != nil || oddKeyID != nil || noAlgorithm != nil {
		if noAlgorithm == nil {
			i.skip("token alg", algorithm, found(header, "alg"), "the header is wrong")
		}
		i.skip("token signature", signature, "", "the header is wrong")
		return
	}
	f := i.gateway.Signature(i.token, parsed.Issuer(), i.site.Signatures, i.site.Keys)
	if f != nil && f.Reason == failure.TokenAlgorithm {
		i.judge(stageToken, "token alg", algorithm, found(header, "alg"), f)
		i.skip("token signature", signature, "", "its alg is not accepted")
		return
	}
	i.judge(stageToken, "token alg", algorithm, found(header, "alg"), nil)
	if i.site.Keys == nil {
		i.skip("token signature", signature, "", "no --jwks")
		return
	}
	i.judge(stageToken, "token signature", signature, verifies(f), f)
}

// tokenClaims is the part of step 7 by which a token is good here and now.
func (i *inspection) tokenClaims(parsed *token.Parsed) {
	claims, rules := parsed.Claims(), &i.site.Rules
	types := rules.Types
	if rules.RFC9068 {
		types = []string{token.AccessTokenType}
	}
	typ, f := rules.CheckType(parsed.Header())
	i.judge(stageToken, "token typ", words(types), found(parsed.Header(), "typ"), f)
	signs := names(claims, "at_hash", "c_hash", "events")
	if claims.Has("typ") {
		signs += ", claim typ " + found(claims, "typ")
	}
	i.judge(stageToken, "token kind", "no sign of another kind", signs, token.CheckKind(typ, claims))
	i.judge(stageToken, "token exp", "a time to come", i.moment(claims, "exp"), rules.CheckExpiry(claims, i.now))
	for _, name := range []string{"nbf", "iat"} {
		i.judge(stageToken, "token "+name, "a time that has come, if there", i.moment(claims, name), rules.CheckStart(claims, name, i.now))
	}
	if rules.RFC9068 {
		const required = "sub client_id jti iat aud"
		i.judge(stageToken, "token profile", required, names(claims, strings.Fields(required)...), token.CheckProfile(claims))
	}
	if aud := words(claims.Strings("aud")); len(rules.Audiences) == 0 {
		i.skip("token aud", "", aud, "no --audience")
	} else {
		i.judge(stageToken, "token aud", words(rules.Audiences), aud, rules.CheckAudience(claims))
	}
}

// binding is step 8.
func (i *inspection) binding(claims jose.Object) {
	cnf := found(claims, "cnf")
	if i.plain {
		i.judge(stageBinding, "token cnf", "none", cnf, token.CheckUnbound(claims))
		return
	}
	// Bound to a key and to nothing else: as if the proof were by that key.
	jkt := thumbprint(claims)
	f := token.CheckBinding(jkt, claims)
	i.judge(stageBinding, "token cnf", "jkt", cnf, f)
	switch {
	case f != nil:
		i.skip("binding", "", "", "the token has no jkt to go by")
	case i.key == nil:
		i.skip("binding", "a proof by "+jkt, "", "there is no proof with a key")
	default:
		i.judge(stageBinding, "binding", "a proof by "+jkt, i.key.Thumbprint, token.CheckBinding(i.key.Thumbprint, claims))
	}
}

func thumbprint(claims jose.Object) string {
	value, _ := claims.Get("cnf")
	cnf, _ := value.Object()
	value, _ = cnf.Get("jkt")
	text, _ := value.Text()
	return text
}
