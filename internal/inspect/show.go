package inspect

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Part is a header or the claims, as a person reads them.
type Part struct {
	Title  string
	Fields []Field
}

// Field is one member.
type Field struct{ Name, Value string }

// times are members that are times.
var times = map[string]bool{"iat": true, "exp": true, "nbf": true, "auth_time": true}

// show adds a part to the report.
func (i *inspection) show(title string, object jose.Object) {
	part := Part{Title: title}
	for _, name := range object.Names() {
		value := found(object, name)
		if times[name] {
			value = strings.TrimSpace(value + "  " + i.moment(object, name))
		}
		part.Fields = append(part.Fields, Field{name, value})
	}
	i.Parts = append(i.Parts, part)
}

// found returns what a member is, or that there is none. What belongs to a private
// key is not told.
func found(object jose.Object, name string) string {
	value, ok := object.Get(name)
	switch {
	case !ok:
		return "none"
	case holdsPrivateKey(value):
		return "(a private or symmetric key)"
	}
	return value.Plain()
}

// holdsPrivateKey reports whether a value is or holds a JWK that is not public.
func holdsPrivateKey(value jose.Value) bool {
	if object, ok := value.Object(); ok {
		if (object.Has("kty") || object.Has("crv")) && jose.CheckPublic(object) != nil {
			return true
		}
		for _, name := range object.Names() {
			member, _ := object.Get(name)
			if holdsPrivateKey(member) {
				return true
			}
		}
	}
	elements, _ := value.Array()
	for _, element := range elements {
		if holdsPrivateKey(element) {
			return true
		}
	}
	return false
}

// kind returns what kind of value a member has.
func kind(object jose.Object, name string) string {
	value, ok := object.Get(name)
	if !ok {
		return "none"
	}
	if _, ok := value.Object(); ok {
		return "an object"
	}
	return found(object, name)
}

// names returns which of some members there are.
func names(object jose.Object, some ...string) string {
	var there []string
	for _, name := range some {
		if object.Has(name) {
			there = append(there, name)
		}
	}
	return words(there)
}

func words(some []string) string {
	if len(some) == 0 {
		return "none"
	}
	return strings.Join(some, " ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func has(yes bool, what string) string {
	if yes {
		return what
	}
	return "none"
}

func verifies(f *failure.Failure) string {
	if f != nil {
		return "not by it"
	}
	return "it verifies"
}

// describeAuthorization says what an Authorization is without showing the token.
func describeAuthorization(values []string, scheme failure.Scheme, token string) string {
	if token == "" {
		return count(len(values), "field")
	}
	return fmt.Sprintf("%s and %s", scheme, count(len(token), "byte"))
}

// moment tells a time, and how far away it is.
func (i *inspection) moment(object jose.Object, name string) string {
	value, ok := object.Get(name)
	if !ok {
		return "none"
	}
	seconds, ok := value.Number()
	if !ok {
		return found(object, name)
	}
	return fmt.Sprintf("%s, %s", date(seconds), distance(seconds-float64(i.now.UnixMilli())/1000))
}

// date is a time in UTC, or of one that no calendar has, the number.
func date(seconds float64) string {
	const last = 253402300799 // in the year 9999
	if seconds < 0 || seconds > last {
		return fmt.Sprintf("%g", seconds)
	}
	return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
}

func distance(seconds float64) string {
	away := math.Round(math.Abs(seconds)*1000) / 1000
	switch {
	case away == 0:
		return "now"
	case seconds < 0:
		return fmt.Sprintf("%.12g s ago", away)
	}
	return fmt.Sprintf("in %.12g s", away)
}

// window tells when an iat is accepted.
func (i *inspection) window() string {
	w := i.site.Window
	return fmt.Sprintf("from %.12g s ago to in %.12g s", (w.MaxAge + w.ClockSkew).Seconds(), w.ClockSkew.Seconds())
}
