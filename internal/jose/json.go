package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deeply arrays and objects may nest. Real headers and
// claims stay below five.
const maxDepth = 16

// Object is a JSON object whose text was checked in full when it was parsed:
// valid UTF-8, no repeated member at any depth, nothing after its end
// (RFC 7515 §4, RFC 7519 §4, RFC 8725 §2.4). encoding/json checks none of
// these, and matches member names without regard to case.
type Object struct {
	members []member
}

type member struct {
	name  string
	value Value
}

// Value is the JSON text of one value within an Object.
type Value string

// maxMembers bounds the members of all objects in a text, unless less is enough.
const maxMembers = 2000

// ParseObject checks and takes apart the JSON object that is the whole of text.
func ParseObject[T ~string | ~[]byte](text T) (Object, error) {
	return parseObject(string(text), maxMembers, new(few))
}

// few is where an object keeps its members, if they are: on the stack of whoever needs
// the object for no longer than a call.
type few [8]member

// parseObject makes nothing of the text but a list of the members: their names and
// values are parts of it.
func parseObject(text string, limit int, room *few) (Object, error) {
	if !utf8.ValidString(text) {
		return Object{}, errors.New("not valid UTF-8")
	}
	s := scanner{text: text, budget: limit}
	s.space()
	if s.peek() != '{' {
		return Object{}, errors.New("not a JSON object")
	}
	members, err := s.outer(room)
	if err != nil {
		return Object{}, err
	}
	s.space()
	if s.at != len(text) {
		return Object{}, errors.New("data after the JSON object")
	}
	return Object{members}, nil
}

// Get returns the member called name, and whether there is one. Case matters.
func (o Object) Get(name string) (Value, bool) {
	for i := range o.members {
		if o.members[i].name == name {
			return o.members[i].value, true
		}
	}
	return "", false
}

// Has reports whether there is a member called name, whatever its value.
func (o Object) Has(name string) bool {
	_, ok := o.Get(name)
	return ok
}

// Strings returns a member that is a string or an array of strings, such as aud
// (RFC 7519 §4.1.3); of an array the elements that are strings.
func (o Object) Strings(name string) []string {
	value, _ := o.Get(name)
	if one, ok := value.Text(); ok {
		return []string{one}
	}
	var all []string
	many, _ := value.Array()
	for _, element := range many {
		if one, ok := element.Text(); ok {
			all = append(all, one)
		}
	}
	return all
}

// Names returns the names of the members, in order.
func (o Object) Names() []string {
	names := make([]string, len(o.members))
	for i := range o.members {
		names[i] = o.members[i].name
	}
	return names
}

// Len returns the number of members.
func (o Object) Len() int { return len(o.members) }

// IsString reports whether the value is a JSON string.
func (v Value) IsString() bool { return len(v) > 0 && v[0] == '"' }

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return len(v) > 0 && v[0] == 'n' }

// Text returns the value of a JSON string, and whether it is one.
func (v Value) Text() (string, bool) {
	if !v.IsString() {
		return "", false
	}
	inner := string(v[1 : len(v)-1])
	if strings.IndexByte(inner, '\\') < 0 {
		return inner, true
	}
	return unescape(inner)
}

// Number returns the value of a JSON number that float64 can hold, and
// whether it is one.
func (v Value) Number() (float64, bool) {
	if len(v) == 0 || v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, false
	}
	if f, ok := v.whole(); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, false
	}
	return f, true
}

// whole returns the value of a number without sign, fraction and exponent that
// float64 holds exactly, as times are, and whether it is one.
func (v Value) whole() (float64, bool) {
	const mostDigits = 15
	if len(v) > mostDigits {
		return 0, false
	}
	n := 0
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		n = 10*n + int(v[i]-'0')
	}
	return float64(n), true
}

// Object returns the value of a JSON object, and whether it is one.
func (v Value) Object() (Object, bool) {
	return v.object(new(few)) // here, it can be on the stack of who calls
}

func (v Value) object(room *few) (Object, bool) {
	if len(v) == 0 || v[0] != '{' {
		return Object{}, false
	}
	o, err := parseObject(string(v), maxMembers, room)
	return o, err == nil
}

// Array returns the elements of a JSON array, and whether it is one.
func (v Value) Array() ([]Value, bool) {
	if len(v) == 0 || v[0] != '[' {
		return nil, false
	}
	s := scanner{text: string(v), budget: maxMembers}
	var elements []Value
	err := s.array(1, &elements)
	return elements, err == nil
}

// Scalar returns the plain text of a string, number or boolean, and whether
// the value is one of them.
func (v Value) Scalar() (string, bool) {
	if v.IsString() {
		return v.Text()
	}
	if len(v) == 0 || v[0] == '{' || v[0] == '[' || v[0] == 'n' {
		return "", false
	}
	return string(v), true
}

// Plain returns what a person or a header takes for the value: the text of a
// string, number or boolean, and of anything else its compact JSON.
func (v Value) Plain() string {
	if text, ok := v.Scalar(); ok {
		return text
	}
	return v.Compact()
}

// Compact returns the value's JSON text without insignificant white space.
func (v Value) Compact() string {
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(v)); err != nil {
		return ""
	}
	return b.String()
}

// scanner walks JSON text by the grammar of RFC 8259. What is nested is checked
// and stepped over; nothing is built of it until somebody asks for it.
type scanner struct {
	text   string
	at     int
	names  []string // of the inner objects that are open, each after its parent's
	budget int      // how many members there may still be
}

var (
	errSyntax   = errors.New("not well-formed JSON")
	errRepeated = errors.New("a JSON object repeats a member")
	errDepth    = errors.New("JSON nested too deeply")
	errMembers  = errors.New("JSON with too many members")
)

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// value steps over one value, and returns its text.
func (s *scanner) value(depth int) (Value, error) {
	start := s.at
	var err error
	switch c := s.peek(); {
	case c == '{':
		err = s.object(depth + 1)
	case c == '[':
		err = s.array(depth+1, nil)
	case c == '"':
		_, err = s.str()
	case c == '-' || c >= '0' && c <= '9':
		err = s.number()
	default:
		err = s.literal()
	}
	if err != nil {
		return "", err
	}
	return Value(s.text[start:s.at]), nil
}

// outer steps over the outermost object, and returns its members.
func (s *scanner) outer(room *few) ([]member, error) {
	members := room[:0]
	for more := s.enter('}'); more; {
		name, err := s.name()
		if err != nil {
			return nil, err
		}
		if len(members) < compared {
			for i := range members {
				if members[i].name == name {
					return nil, errRepeated
				}
			}
		}
		value, err := s.value(1)
		if err != nil {
			return nil, err
		}
		members = append(members, member{name, value})
		if more, err = s.next('}'); err != nil {
			return nil, err
		}
	}
	if len(members) <= compared {
		return members, nil
	}
	names := make([]string, len(members))
	for i := range members {
		names[i] = members[i].name
	}
	return members, different(names)
}

// object steps over an inner object.
func (s *scanner) object(depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	base := len(s.names)
	for more := s.enter('}'); more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		names := s.names[base:]
		if len(names) < compared && slices.Contains(names, name) {
			return errRepeated
		}
		s.names = append(s.names, name)
		if _, err := s.value(depth); err != nil {
			return err
		}
		if more, err = s.next('}'); err != nil {
			return err
		}
	}
	names := s.names[base:]
	s.names = s.names[:base]
	if len(names) <= compared {
		return nil
	}
	return different(names)
}

// name steps over the name of a member, and the colon behind it.
func (s *scanner) name() (string, error) {
	name, err := s.str()
	if err != nil {
		return "", err
	}
	s.space()
	if s.peek() != ':' {
		return "", errSyntax
	}
	s.at++
	s.space()
	if s.budget--; s.budget < 0 {
		return "", errMembers
	}
	return name, nil
}

// array steps over an array, and adds its elements to those given, if any are.
func (s *scanner) array(depth int, values *[]Value) error {
	if depth > maxDepth {
		return errDepth
	}
	for more := s.enter(']'); more; {
		value, err := s.value(depth)
		if err != nil {
			return err
		}
		if values != nil {
			*values = append(*values, value)
		}
		if more, err = s.next(']'); err != nil {
			return err
		}
	}
	return nil
}

// enter steps over an opening bracket, and over the closing one if nothing is
// between them; otherwise it reports that there is more.
func (s *scanner) enter(closing byte) (more bool) {
	s.at++
	s.space()
	if s.peek() == closing {
		s.at++
		return false
	}
	return true
}

// next steps over what follows an element: a comma, and then there must be more, or
// the closing bracket.
func (s *scanner) next(closing byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.at++
		s.space()
		return true, nil
	case closing:
		s.at++
		return false, nil
	}
	return false, errSyntax
}

// compared is how many members an object may have for the name of each to be compared
// with all others as it is read. Where there are more, which a hostile object could
// make slow, repeated ones are found side by side in their order.
const compared = 16

func different(names []string) error {
	slices.Sort(names)
	for i := range names[1:] {
		if names[i] == names[i+1] {
			return errRepeated
		}
	}
	return nil
}

// str steps over a string, and returns what it stands for.
func (s *scanner) str() (string, error) {
	if s.peek() != '"' {
		return "", errSyntax
	}
	start, escaped := s.at+1, false
	for at := start; at < len(s.text); at++ {
		switch c := s.text[at]; {
		case c == '"':
			s.at = at + 1
			inner := s.text[start:at]
			if !escaped {
				return inner, nil
			}
			unescaped, ok := unescape(inner)
			if !ok {
				return "", errSyntax
			}
			return unescaped, nil
		case c == '\\':
			escaped = true
			at++
		case c < 0x20:
			return "", errSyntax
		}
	}
	return "", errSyntax
}

// unescape resolves the escapes of a string's inside. It refuses a surrogate
// without its other half: encoding/json would make U+FFFD of each, and so two
// different strings equal.
func unescape(inner string) (string, bool) {
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			out = append(out, inner[i])
			continue
		}
		i++
		if i >= len(inner) {
			return "", false
		}
		switch c := inner[i]; c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(inner[i+1:])
			if !ok || r >= 0xDC00 && r <= 0xDFFF {
				return "", false
			}
			i += 4
			if r >= 0xD800 && r <= 0xDBFF {
				if i+2 >= len(inner) || inner[i+1] != '\\' || inner[i+2] != 'u' {
					return "", false
				}
				low, ok := hex4(inner[i+3:])
				if !ok || low < 0xDC00 || low > 0xDFFF {
					return "", false
				}
				r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", false
		}
	}
	return string(out), true
}

func hex4(b string) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(b[:4]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	switch c := s.peek(); {
	case c == '0':
		s.at++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return errSyntax
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return errSyntax
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return errSyntax
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.at
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.at++
	}
	return s.at > start
}

func (s *scanner) literal() error {
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(s.text[s.at:], word) {
			s.at += len(word)
			return nil
		}
	}
	return errSyntax
}
