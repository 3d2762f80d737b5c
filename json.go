package caddydpop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// The settings are decoded by their exact names. encoding/json takes names in
// any case, and the last of several: then "Mode" could quietly win over "mode".

// UnmarshalJSON implements json.Unmarshaler.
func (h *Handler) UnmarshalJSON(text []byte) error {
	type plain Handler
	return decodeExactly(text, (*plain)(h))
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *Issuer) UnmarshalJSON(text []byte) error {
	type plain Issuer
	return decodeExactly(text, (*plain)(i))
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *Introspection) UnmarshalJSON(text []byte) error {
	type plain Introspection
	return decodeExactly(text, (*plain)(i))
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Proof) UnmarshalJSON(text []byte) error {
	type plain Proof
	return decodeExactly(text, (*plain)(p))
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *MemoryReplay) UnmarshalJSON(text []byte) error {
	type plain MemoryReplay
	return decodeExactly(text, (*plain)(m))
}

// decodeExactly decodes an object into a struct: no name that the struct does
// not have, exactly as it is spelt, and none twice.
func decodeExactly(text []byte, into any) error {
	object, err := jose.ParseObject(text)
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, field := range reflect.VisibleFields(reflect.TypeOf(into).Elem()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[name] = true
	}
	for _, name := range object.Names() {
		if !known[name] {
			return fmt.Errorf("unknown setting %q", name)
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
