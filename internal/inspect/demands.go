package inspect

import (
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// demand is a part of what a site demands of good tokens.
type demand struct {
	name, expected string
	part           token.Demands
	found          func(jose.Object) string
}

// demandsMade takes the site's demands apart, in the order of the gateway.
func (i *inspection) demandsMade() []demand {
	all := i.site.Demands
	var made []demand
	if len(all.ACR) > 0 {
		made = append(made, demand{"required acr", words(all.ACR), token.Demands{ACR: all.ACR},
			func(claims jose.Object) string { return found(claims, "acr") }})
	}
	if all.MaxAuthAge > 0 {
		made = append(made, demand{"required auth_time", "at most " + all.MaxAuthAge.String() + " ago",
			token.Demands{MaxAuthAge: all.MaxAuthAge, ClockSkew: all.ClockSkew},
			func(claims jose.Object) string { return i.moment(claims, "auth_time") }})
	}
	if len(all.Scopes) > 0 {
		made = append(made, demand{"required scope", words(all.Scopes), token.Demands{Scopes: all.Scopes},
			func(claims jose.Object) string {
				if !claims.Has("scope") && claims.Has("scp") {
					return found(claims, "scp")
				}
				return found(claims, "scope")
			}})
	}
	for _, claim := range all.Claims {
		made = append(made, demand{"required " + claim.Path, strings.Join(claim.Values, " or "), token.Demands{Claims: []token.ClaimDemand{claim}},
			func(claims jose.Object) string {
				value, ok := token.Claim(claims, claim.Path)
				if !ok {
					return "none"
				}
				return value.Plain()
			}})
	}
	return made
}

// demanded are the names of the checks that demands makes.
func (i *inspection) demanded() []string {
	var names []string
	for _, d := range i.demandsMade() {
		names = append(names, d.name)
	}
	return names
}

// demands is step 10.
func (i *inspection) demands(claims jose.Object) {
	for _, d := range i.demandsMade() {
		i.judge(stageDemands, d.name, d.expected, d.found(claims), d.part.Check(claims, i.now))
	}
}
