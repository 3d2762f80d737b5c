package caddydpop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// UnmarshalJSON implements json.Unmarshaler.
func (h *Handler) UnmarshalJSON(text []byte) error {
	type plain Handler
	return decodeExactly(text, (*plain)(h))
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *MemoryReplay) UnmarshalJSON(text []byte) error {
	type plain MemoryReplay
	return decodeExactly(text, (*plain)(m))
}

// decodeExactly decodes settings by their exact names. encoding/json takes names
// in any case, and the last of several: "Mode" could quietly win over "mode".
func decodeExactly(text []byte, into any) error {
	if err := checkNames(jose.Value(text), reflect.TypeOf(into), ""); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// checkNames checks that the objects in a value have no members but those that a
// type has, exactly as they are spelt, and none twice. Of several in a configuration
// Caddy itself passes on the last alone.
func checkNames(value jose.Value, t reflect.Type, path string) error {
	switch t.Kind() {
	case reflect.Int64: // encoding/json does not say which duration it does not understand
		if err := json.Unmarshal([]byte(value), reflect.New(t).Interface()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case reflect.Pointer:
		return checkNames(value, t.Elem(), path)
	case reflect.Slice:
		elements, _ := value.Array()
		for i, element := range elements {
			if err := checkNames(element, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return checkMembers(value, t, path)
	}
	return nil
}

func checkMembers(value jose.Value, t reflect.Type, path string) error {
	object, err := jose.ParseObject(value)
	if err != nil {
		return fmt.Errorf("%s: %w", orDefault(path, "handler"), err)
	}
	fields := make(map[string]reflect.Type)
	for _, field := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			fields[name] = field.Type
		}
	}
	for _, name := range object.Names() {
		inner := name
		if path != "" {
			inner = path + "." + name
		}
		field, known := fields[name]
		if !known {
			return fmt.Errorf("unknown setting %q", inner)
		}
		member, _ := object.Get(name)
		if err := checkNames(member, field, inner); err != nil {
			return err
		}
	}
	return nil
}
