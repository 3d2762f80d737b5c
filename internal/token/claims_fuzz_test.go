package token

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// FuzzClaims holds what is checked of claims beside what encoding/json makes of
// them: times, audience, confirmation, scopes and paths.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"iss":"https://issuer.example","aud":"api","exp":1800000000,"cnf":{"jkt":"x"},"scope":"a b"}`,
		`{"aud":["x","api"],"exp":1.8e9,"nbf":0,"iat":-1,"scp":["a","b"],"auth_time":1700000000,"acr":"gold"}`,
		`{"aud":[["api"],null,{}],"exp":"1","cnf":null,"scope":["a b"]}`, `{"aud":"","exp":1e400,"cnf":{},"scp":"b  a"}`,
		`{"cnf":{"jkt":["x"],"x5t#S256":"y"},"a":{"b":{"c":1}},"a.b":{"c":2},"a.b.c":3}`, `{"cnf":{"jkt":"x","kid":1},"typ":"id","at_hash":1}`,
		`{"sub":{"a":1},"client_id":"c","azp":"d"}`, `{"sub":null,"client_id":7}`, `{"exp":1700000010,"scope":null,"scp":"a"}`,
	} {
		f.Add(seed)
	}
	now := time.Unix(1700000000, 0)
	rules := &Rules{Issuer: "https://issuer.example", Audiences: []string{"api"}, ClockSkew: 10 * time.Second, Types: []string{"-"}}
	f.Fuzz(func(t *testing.T, text string) {
		claims, err := jose.ParseObject([]byte(text))
		if err != nil {
			return
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			// a number that float64 cannot hold, which no check may take for one
			if strings.Contains(err.Error(), "cannot unmarshal number") {
				return
			}
			t.Fatalf("%s: %v", text, err)
		}
		audience := want["aud"] == "api"
		many, _ := want["aud"].([]any)
		for _, one := range many {
			audience = audience || one == "api"
		}
		if got := rules.CheckAudience(claims) == nil; got != audience {
			t.Fatalf("%s: its audience is right: %t", text, got)
		}
		exp, isNumber := want["exp"].(float64)
		if got := rules.CheckExpiry(claims, now) == nil; got != (isNumber && exp > 1700000000-10) {
			t.Fatalf("%s: it is in time: %t", text, got)
		}
		for _, name := range []string{"nbf", "iat"} {
			from, there := want[name]
			number, isNumber := from.(float64)
			if got := rules.CheckStart(claims, name, now) == nil; got != (!there || isNumber && number <= 1700000000+10) {
				t.Fatalf("%s: %s is in time: %t", text, name, got)
			}
		}
		cnf, isObject := want["cnf"].(map[string]any)
		_, bound := want["cnf"]
		right := isObject && cnf["jkt"] == "x"
		for _, name := range uncheckedConfirmations {
			if _, ok := cnf[name]; ok {
				right = false
			}
		}
		if got := CheckBinding("x", claims) == nil; got != right {
			t.Fatalf("%s: it is bound to the key: %t", text, got)
		}
		holder := HolderOf(claims)
		if got := holder.CheckBinding("x", claims, jose.Object{}) == nil; got != right {
			t.Fatalf("%s: its holder is that of the key: %t", text, got)
		}
		if holder.CheckBinding("y", claims, jose.Object{}) == nil && right || holder.ClientID != ClientID(claims) {
			t.Fatalf("%s: it is of another holder", text)
		}
		if got := CheckUnbound(claims) == nil; got == bound {
			t.Fatalf("%s: it is bound to nothing: %t", text, got)
		}
		demands := Demands{Scopes: []string{"a", "b"}}
		if got := demands.Check(claims, now) == nil; got != hasScopes(want) {
			t.Fatalf("%s: it has the scopes: %t", text, got)
		}
		// none of these may panic, nor find what is not there
		demands = Demands{ACR: []string{"gold"}, MaxAuthAge: time.Minute, Claims: []ClaimDemand{{"a.b.c", []string{"1", "2", "3"}}}}
		demands.Check(claims, now)
		(&Token{Claims: claims}).Check(rules, now)
		if value, ok := Claim(claims, "a.b.c"); ok && !strings.Contains(text, string(value)) {
			t.Fatalf("%s: its a.b.c is %s", text, value)
		}
		if subject := Subject(claims); subject != "" && subject != plain(want["sub"]) && subject != plain(want["client_id"]) && isPlain(want["sub"]) {
			t.Fatalf("%s: its subject is %q", text, subject)
		}
		if CheckAgreement(claims, claims) != nil && agrees(want) {
			t.Fatalf("%s contradicts itself", text)
		}
	})
}

func hasScopes(claims map[string]any) bool {
	scope, ok := claims["scope"]
	if !ok {
		scope = claims["scp"]
	}
	found := make(map[string]bool)
	switch scope := scope.(type) {
	case string:
		for _, word := range strings.Fields(scope) {
			found[word] = true
		}
	case []any:
		for _, one := range scope {
			if word, ok := one.(string); ok {
				found[word] = true
			}
		}
	}
	return found["a"] && found["b"]
}

func isPlain(value any) bool {
	_, isText := value.(string)
	return isText
}

func plain(value any) string { return fmt.Sprint(value) }

// agrees reports whether the members that two claim sets must have alike are such
// that a set agrees with itself.
func agrees(claims map[string]any) bool {
	for _, name := range []string{"iss", "sub"} {
		if value, ok := claims[name]; ok {
			if _, isText := value.(string); !isText {
				return false
			}
		}
	}
	cnf, ok := claims["cnf"]
	if !ok {
		return true
	}
	members, _ := cnf.(map[string]any)
	_, isText := members["jkt"].(string)
	return isText
}
