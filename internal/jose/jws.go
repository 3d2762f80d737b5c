// Package jose has what DPoP proofs and access tokens share of JSON Object
// Signing and Encryption: JSON without ambiguities, the compact serialisation
// (RFC 7515), public keys and their thumbprints (RFC 7517, RFC 7638), and
// signatures (RFC 7518, RFC 8037). It accepts one encoding of each thing.
package jose

import (
	"encoding/base64"
	"errors"
	"strings"
)

// JWS is a JSON Web Signature in compact serialisation, taken apart but not
// verified (RFC 7515 §7.1).
type JWS struct {
	Header    Object
	Claims    Object
	Input     string // the signing input: everything before the last dot
	Signature []byte
}

// ErrNotCompact says that a text is not three base64url parts joined by dots.
var ErrNotCompact = errors.New("not three base64url parts joined by dots")

// How many members a part may have. Many more would cost about what verifying a
// signature does, and who sends a JWS is anonymous until then.
const (
	maxHeaderMembers = 100
	maxClaimMembers  = 500
)

// ParseJWS takes apart a JWS whose payload is a JSON object, as all JWTs are.
func ParseJWS(compact string) (JWS, error) {
	return parseJWS(compact, maxClaimMembers, true, new(few), nil)
}

// Room is where a small JWS has its claims and its signature, for as long as it is
// needed: on the stack of whoever needs it.
type Room struct {
	claims    few
	signature [4096 / 8]byte // of the largest RSA key of clients
}

// ParseSmallJWS is ParseJWS for one with few claims, as a proof is, with room for
// them.
func ParseSmallJWS(compact string, room *Room) (JWS, error) {
	return parseJWS(compact, maxHeaderMembers, true, &room.claims, room.signature[:0])
}

// ParseHeader returns the JOSE header that a JWS or a JWE begins with, and
// whether there is one.
func ParseHeader(compact string) (Object, bool) {
	part, _, _ := strings.Cut(compact, ".")
	header, err := decodeObject(part, maxHeaderMembers, new(few))
	return header, err == nil && header.Has("alg")
}

// HeaderText returns the text of the JOSE header, as it is encoded.
func HeaderText(compact string) string {
	head, _, _ := strings.Cut(compact, ".")
	return head
}

// ParseSmallJWSBody is ParseSmallJWS for one whose header is known by its text: the
// header is left out.
func ParseSmallJWSBody(compact string, room *Room) (JWS, error) {
	return parseJWS(compact, maxHeaderMembers, false, &room.claims, room.signature[:0])
}

func parseJWS(compact string, limit int, withHeader bool, room *few, octets []byte) (JWS, error) {
	head, rest, ok := strings.Cut(compact, ".")
	if !ok {
		return JWS{}, ErrNotCompact
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return JWS{}, ErrNotCompact
	}
	var jws JWS
	var err error
	if withHeader {
		if jws.Header, err = decodeObject(head, maxHeaderMembers, new(few)); err != nil {
			return JWS{}, &PartError{"header", err}
		}
	}
	if jws.Claims, err = decodeObject(payload, limit, room); err != nil {
		return JWS{}, &PartError{"claims", err}
	}
	if jws.Signature, err = appendBase64URL(octets, signature); err != nil {
		return JWS{}, &PartError{"signature", err}
	}
	jws.Input = compact[:len(head)+1+len(payload)]
	return jws, nil
}

// Extended reports whether the header has a member that changes what is signed,
// or how it must be read: crit, b64 or zip (RFC 7515 §4.1.11, RFC 7797, RFC 7516
// §4.1.3). None of them is supported.
func (j JWS) Extended() bool {
	return j.Header.Has("crit") || j.Header.Has("b64") || j.Header.Has("zip")
}

// PartError says which part of a JWS is malformed, and how.
type PartError struct {
	Part string // header, claims or signature
	Err  error
}

func (e *PartError) Error() string { return e.Part + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the part.
func (e *PartError) Unwrap() error { return e.Err }

func decodeObject(part string, limit int, room *few) (Object, error) {
	var buffer [1024]byte // enough for most
	text, err := appendBase64URL(buffer[:0], part)
	if err != nil {
		return Object{}, err
	}
	return parseObject(string(text), limit, room)
}

var errBase64 = errors.New("not canonical base64url without padding")

// DecodeBase64URL decodes the one encoding that RFC 7515 §2 allows: no padding,
// no line breaks (encoding/base64 skips them even when strict), and no bits
// set in the last character that are not part of the data.
func DecodeBase64URL(s string) ([]byte, error) { return appendBase64URL(nil, s) }

func appendBase64URL(out []byte, s string) ([]byte, error) {
	before := len(out)
	out, err := strictBase64URL.AppendDecode(out, []byte(s))
	// Where line breaks were skipped, less came out than the length says; only of a
	// length that no encoding has, as much may have.
	if err != nil || len(s)%4 == 1 || len(out)-before != strictBase64URL.DecodedLen(len(s)) {
		return nil, errBase64
	}
	return out, nil
}

var strictBase64URL = base64.RawURLEncoding.Strict()

// MediaTypeIs reports whether typ, the typ member of a JOSE header, names the
// media type want: case and an application/ prefix do not matter
// (RFC 7515 §4.1.9).
func MediaTypeIs(typ, want string) bool {
	typ = TrimMediaType(typ)
	// The names are ASCII: EqualFold alone would take U+212A, the Kelvin sign,
	// for a k.
	return len(typ) == len(want) && strings.EqualFold(typ, want)
}

// TrimMediaType removes the application/ prefix of a media type, if it has one.
func TrimMediaType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		return typ[len(prefix):]
	}
	return typ
}
