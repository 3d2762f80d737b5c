package token

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

func TestDemands(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	claim := func(path string, values ...string) Demands { return Demands{Claims: []ClaimDemand{{path, values}}} }
	scope := func(scopes ...string) Demands { return Demands{Scopes: scopes} }
	for _, row := range []struct {
		name    string
		demands Demands
		claims  string
		want    failure.Reason
		params  string // name=value of the challenge's parameters
	}{
		{"nothing demanded", Demands{}, `{}`, "", ""},

		{"a scope", scope("a"), `{"scope":"b a c"}`, "", ""},
		{"all scopes", scope("a", "c"), `{"scope":"c b a"}`, "", ""},
		{"one scope of two", scope("a", "d"), `{"scope":"a b"}`, failure.ScopeMissing, "scope=a d"},
		{"no scope", scope("a"), `{}`, failure.ScopeMissing, "scope=a"},
		{"part of a scope's name", scope("read"), `{"scope":"readwrite read:x"}`, failure.ScopeMissing, "scope=read"},
		{"scope in another case", scope("a"), `{"scope":"A"}`, failure.ScopeMissing, "scope=a"},
		{"scope, an array", scope("a", "b"), `{"scope":["a","b"]}`, "", ""},
		{"an array's element is one scope", scope("a"), `{"scope":["a b"]}`, failure.ScopeMissing, "scope=a"},
		{"scp, an array (Okta)", scope("a"), `{"scp":["a"]}`, "", ""},
		{"scp, a string (Entra)", scope("a"), `{"scp":"b a"}`, "", ""},
		{"scope goes before scp", scope("a"), `{"scope":"b","scp":"a"}`, failure.ScopeMissing, "scope=a"},
		{"scope of another type", scope("a"), `{"scope":{"a":"a"},"scp":"a"}`, failure.ScopeMissing, "scope=a"},

		{"a claim", claim("dept", "x", "y"), `{"dept":"y"}`, "", ""},
		{"a claim of another value", claim("dept", "x"), `{"dept":"xx"}`, failure.ClaimMissing, ""},
		{"no claim", claim("dept", "x"), `{}`, failure.ClaimMissing, ""},
		{"a claim in an array", claim("realm_access.roles", "admin"), `{"realm_access":{"roles":["user","admin"]}}`, "", ""},
		{"not in the array", claim("realm_access.roles", "admin"), `{"realm_access":{"roles":["user"]}}`, failure.ClaimMissing, ""},
		{"a string is no list", claim("roles", "admin"), `{"roles":"user admin"}`, failure.ClaimMissing, ""},
		{"but scope is", claim("scope", "admin"), `{"scope":"user admin"}`, "", ""},
		{"and scp", claim("scp", "admin"), `{"scp":["user","admin"]}`, "", ""},
		{"a boolean", claim("email_verified", "true"), `{"email_verified":true}`, "", ""},
		{"an object", claim("a", "b"), `{"a":{"b":"b"}}`, failure.ClaimMissing, ""},
		{"null", claim("a", "null"), `{"a":null}`, failure.ClaimMissing, ""},
		{"all claims must hold", Demands{Claims: []ClaimDemand{{"a", []string{"1"}}, {"b", []string{"2"}}}}, `{"a":"1","b":"1"}`, failure.ClaimMissing, ""},

		{"acr", Demands{ACR: []string{"gold", "silver"}}, `{"acr":"silver"}`, "", ""},
		{"another acr", Demands{ACR: []string{"gold", "silver"}}, `{"acr":"bronze"}`, failure.AuthenticationWeak, "acr_values=gold silver"},
		{"no acr", Demands{ACR: []string{"gold"}}, `{}`, failure.AuthenticationWeak, "acr_values=gold"},
		{"acr, an array", Demands{ACR: []string{"gold"}}, `{"acr":["gold"]}`, failure.AuthenticationWeak, "acr_values=gold"},

		{"authenticated in time", Demands{MaxAuthAge: time.Minute}, `{"auth_time":1699999940}`, "", ""},
		{"with the clock's tolerance", Demands{MaxAuthAge: time.Minute, ClockSkew: 10 * time.Second}, `{"auth_time":1699999930}`, "", ""},
		{"too long ago", Demands{MaxAuthAge: time.Minute, ClockSkew: 10 * time.Second}, `{"auth_time":1699999929}`, failure.AuthenticationOld, "max_age=60"},
		{"no auth_time", Demands{MaxAuthAge: time.Minute}, `{"iat":1700000000}`, failure.AuthenticationOld, "max_age=60"},
		{"auth_time, a string", Demands{MaxAuthAge: time.Minute}, `{"auth_time":"1700000000"}`, failure.AuthenticationOld, "max_age=60"},

		// if both fail, the answer is the acr's, with scope
		{"acr and scope", Demands{ACR: []string{"gold"}, Scopes: []string{"a"}}, `{}`, failure.AuthenticationWeak, "acr_values=gold scope=a"},
		{"age and scope", Demands{ACR: []string{"gold"}, MaxAuthAge: time.Minute, Scopes: []string{"a"}}, `{"acr":"gold","auth_time":0}`,
			failure.AuthenticationOld, "acr_values=gold max_age=60 scope=a"},
		{"acr, not scope", Demands{ACR: []string{"gold"}, Scopes: []string{"a"}}, `{"scope":"a"}`, failure.AuthenticationWeak, "acr_values=gold"},
		{"scope before claims", Demands{Scopes: []string{"a"}, Claims: []ClaimDemand{{"b", []string{"c"}}}}, `{}`, failure.ScopeMissing, "scope=a"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := row.demands.Check(object(t, row.claims), now)
			var reason failure.Reason
			params := ""
			if f != nil {
				reason = f.Reason
				for _, p := range f.Parameters {
					params += " " + p.Name + "=" + p.Value
				}
			}
			if reason != row.want {
				t.Errorf("got %q, want %q", reason, row.want)
			}
			if row.params != "" {
				row.params = " " + row.params
			}
			if params != row.params {
				t.Errorf("parameters%s, want%s", params, row.params)
			}
		})
	}
}
