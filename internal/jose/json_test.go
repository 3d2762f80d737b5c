package jose

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// members returns the text of an object of n members, "m0":0 and so on, ended
// by the text last.
func members(n int, last string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":%d,`, i, i)
	}
	return "{" + b.String() + last + "}"
}

// nested returns an object with arrays inside it down to a depth.
func nested(depth int) string {
	return `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
}

func TestParseObjectRefuses(t *testing.T) {
	tests := []struct {
		name, text string
	}{
		// RFC 7515 §4, RFC 7519 §4: member names must be unique.
		{"repeated member", `{"a":1,"a":2}`},
		{"repeated member of equal value", `{"a":1,"a":1}`},
		{"repeated member, apart", `{"a":1,"b":2,"a":3}`},
		{"repeated member by an escape, RFC 8259 §8.3", `{"a":1,"\u0061":2}`},
		{"repeated member, escape first", `{"\u0061":1,"a":2}`},
		{"repeated member by two escapes", `{"\u0061":1,"\u0061":2}`},
		{"repeated member by upper and lower hex", `{"\u00E9":1,"\u00e9":2}`},
		{"repeated member by surrogates", `{"😀":1,"\ud83d\ude00":2}`},
		{"repeated member by a short escape", `{"\/":1,"/":2}`},
		{"repeated empty member", `{"":1,"":2}`},
		{"repeated member within an object", `{"o":{"a":1,"a":2}}`},
		{"repeated member within an array", `{"o":[{"a":1,"a":2}]}`},
		{"repeated member, deep, by an escape", `{"o":[{"p":[[{"a":1,"\u0061":2}]]}]}`},
		{"16 members, last repeats first", members(15, `"m0":1`)},
		{"17 members, last repeats first", members(16, `"m0":1`)},
		{"17 members, last repeats its neighbour", members(16, `"m15":1`)},
		{"18 members, last repeats the 17th", members(17, `"m16":1`)},
		{"100 members, last repeats the 50th by an escape", members(99, `"\u006d49":1`)},
		{"100 members within an array", `{"o":[` + members(99, `"m70":1`) + `]}`},

		// RFC 8259 §8.1, RFC 7515 §4: UTF-8.
		{"bare continuation byte", "{\"a\":\"\x80\"}"},
		{"overlong slash", "{\"a\":\"\xc0\xaf\"}"},
		{"surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}"},
		{"truncated sequence", "{\"a\":\"\xe2\x82\"}"},
		{"bad UTF-8 in a name", "{\"\xff\":1}"},
		{"UTF-16", "{\x00\"\x00a\x00\"\x00:\x001\x00}\x00"},
		{"byte order mark", "\ufeff{}"},

		// RFC 8259 §8.2: what a lone surrogate stands for, nobody can say.
		{"lone high surrogate", `{"a":"\ud83d"}`},
		{"lone low surrogate", `{"a":"\ude00"}`},
		{"high surrogate twice", `{"a":"\ud83d\ud83d"}`},
		{"high surrogate, then a character", `{"a":"\ud83dx"}`},
		{"high surrogate, then another escape", `{"a":"\ud83d\n"}`},
		{"high surrogate, then a plain escape", `{"a":"\ud83d\u0041"}`},
		{"surrogates in the wrong order", `{"a":"\ude00\ud83d"}`},
		{"high surrogate, cut short", `{"a":"\ud83d\u"}`},
		{"high surrogate, cut shorter", `{"a":"\ud83d\ude0"}`},
		{"lone surrogate in a name", `{"\ud83d":1}`},
		{"lone surrogate, deep", `{"o":[{"p":"\udfff"}]}`},

		// Data after the value: encoding/json's Decoder does not look.
		{"second object", `{}{}`},
		{"trailing brace", `{}}`},
		{"trailing comma after it", `{},`},
		{"trailing NUL", "{}\x00"},
		{"trailing form feed", "{}\f"},
		{"trailing no-break space", "{}\u00a0"},
		{"trailing comment", `{}//`},

		// RFC 7519 §7.2 step 10: a JSON object.
		{"nothing", ``},
		{"white space", ` `},
		{"array", `[]`},
		{"string", `"a"`},
		{"number", `1`},
		{"null", `null`},

		// RFC 8259 §2 to §5: the grammar.
		{"not ended", `{`},
		{"name not ended", `{"a`},
		{"no colon", `{"a"}`},
		{"no value", `{"a":}`},
		{"value not ended", `{"a":1`},
		{"string not ended", `{"a":"b}`},
		{"comma and no member", `{"a":1,}`},
		{"comma first", `{,"a":1}`},
		{"no comma", `{"a":1"b":2}`},
		{"name without quotes", `{a:1}`},
		{"name in single quotes", `{'a':1}`},
		{"name that is a number", `{1:1}`},
		{"array not ended", `{"a":[1`},
		{"array, comma and no value", `{"a":[1,]}`},
		{"array, comma first", `{"a":[,1]}`},
		{"array, no comma", `{"a":[1 2]}`},
		{"array ended by a brace", `{"a":[1}}`},
		{"object ended by a bracket", `{"a":1]`},
		{"comment", `{/**/}`},
		{"vertical tab as white space", "{\v}"},
		{"True", `{"a":True}`},
		{"truex", `{"a":truex}`},
		{"tru", `{"a":tru}`},
		{"nul", `{"a":nul}`},
		{"undefined", `{"a":undefined}`},

		// RFC 8259 §7: strings.
		{"line feed in a string", "{\"a\":\"\n\"}"},
		{"NUL in a string", "{\"a\":\"\x00\"}"},
		{"unit separator in a string", "{\"a\":\"\x1f\"}"},
		{"control character after a backslash", "{\"a\":\"\\\n\"}"},
		{"escape of x", `{"a":"\x41"}`},
		{"escape of a quote mark", `{"a":"\'"}`},
		{"escape of U", `{"a":"\U0041"}`},
		{"escape of three digits", `{"a":"\u004"}`},
		{"escape with a sign", `{"a":"\u+041"}`},
		{"escape with a letter past f", `{"a":"\u004g"}`},
		{"escape cut short by the end", `{"a":"\u00`},

		// RFC 8259 §6: numbers.
		{"leading zero", `{"a":01}`},
		{"negative leading zero", `{"a":-01}`},
		{"plus sign", `{"a":+1}`},
		{"minus alone", `{"a":-}`},
		{"two minuses", `{"a":--1}`},
		{"no digit before the point", `{"a":.5}`},
		{"no digit after the point", `{"a":5.}`},
		{"two points", `{"a":1.2.3}`},
		{"no exponent after e", `{"a":1e}`},
		{"no exponent after e+", `{"a":1e+}`},
		{"fraction in the exponent", `{"a":1e1.5}`},
		{"hexadecimal", `{"a":0x10}`},
		{"underscore", `{"a":1_000}`},
		{"NaN", `{"a":NaN}`},
		{"Infinity", `{"a":Infinity}`},
		{"-Infinity", `{"a":-Infinity}`},

		// The escape would go on behind the end.
		{"ends in a backslash", `{"a":"\`},
		{"ends in a backslash, in an object", `{"a":{"\`},
		{"ends in a backslash, in an array", `{"a":["\`},

		// A bound of this package: a parser must not be a stack to fill.
		{"17 levels", nested(17)},
		{"17 levels of objects", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17)},
		{"4000 levels", nested(4000)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// with no room behind the end, as base64 decodes
			if o, err := ParseObject(slices.Clip([]byte(test.text))); err == nil {
				t.Errorf("%q was accepted, with %d members", test.text, o.Len())
			}
		})
	}
}

func TestParseObjectAccepts(t *testing.T) {
	tests := []struct {
		name, text string
		len        int
	}{
		{"empty", `{}`, 0},
		{"white space everywhere, RFC 8259 §2", " \t\r\n{ \"a\" : [ 1 , { } ] , \"b\" :\n2 } \n", 2},
		{"names that differ in case are different, RFC 7515 §4", `{"a":1,"A":2}`, 2},
		{"an escaped name that differs in case", `{"a":1,"\u0041":2}`, 2},
		{"Kelvin sign and k are different names", `{"k":1,"K":2,"` + "\u212a" + `":3}`, 3},
		{"composed and decomposed names are different", `{"é":1,"e` + "\u0301" + `":2}`, 2},
		{"one name in two objects", `{"a":{"a":1},"b":{"a":1}}`, 2},
		{"one name in the objects of an array", `{"a":[{"a":1},{"a":1}]}`, 1},
		{"empty name", `{"":1}`, 1},
		{"16 members", members(15, `"z":1`), 16},
		{"17 members", members(16, `"z":1`), 17},
		{"100 members", members(99, `"z":1`), 100},
		{"16 levels", nested(16), 1},
		{"literals", `{"t":true,"f":false,"n":null}`, 3},
		{"delete and the last code point are no control characters", "{\"a\":\"\x7f\U0010ffff\"}", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := ParseObject([]byte(test.text))
			if err != nil {
				t.Fatalf("%q: %v", test.text, err)
			}
			if o.Len() != test.len {
				t.Errorf("%q has %d members, not %d", test.text, o.Len(), test.len)
			}
		})
	}
}

// object parses text that must be good.
func object(t *testing.T, text string) Object {
	t.Helper()
	o, err := ParseObject([]byte(text))
	if err != nil {
		t.Fatalf("parsing %s: %v", text, err)
	}
	return o
}

func TestGetMatchesCase(t *testing.T) {
	// RFC 7515 §4, RFC 7519 §10.1.1: encoding/json would take any of these for jwk.
	o := object(t, `{"JWK":1,"Jwk":2,"jw`+"\u212a"+`":3,"\u006a\u0077\u006c":4,"n":null}`)
	for _, name := range []string{"jwk", "jWk", "N", "", "a"} {
		if value, ok := o.Get(name); ok || o.Has(name) {
			t.Errorf("member %q was found, with value %s", name, value)
		}
	}
	for name, want := range map[string]string{"JWK": "1", "Jwk": "2", "jw\u212a": "3", "jwl": "4", "n": "null"} {
		if value, ok := o.Get(name); !ok || !o.Has(name) || string(value) != want {
			t.Errorf("member %q is %s, not %s", name, value, want)
		}
	}
	if (Object{}).Has("") || (Object{}).Len() != 0 {
		t.Error("the zero Object has a member")
	}
}

// value parses text as the value of a member.
func value(t *testing.T, text string) Value {
	t.Helper()
	v, ok := object(t, `{"x": `+text+` }`).Get("x")
	if !ok {
		t.Fatalf("member x of value %s is not there", text)
	}
	return v
}

func TestText(t *testing.T) {
	tests := []struct {
		text, want string
		ok         bool
	}{
		{`""`, "", true},
		{`"abc"`, "abc", true},
		{`"é😀"`, "é😀", true},
		{`"\u00e9"`, "é", true},
		{`"\uD83D\uDE00"`, "😀", true},
		{`"\ud800\udc00\udbff\udfff"`, "\U00010000\U0010ffff", true},
		{`"\u0000\ud7ff\ue000\uffff"`, "\x00\ud7ff\ue000\uffff", true},
		{`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t", true},
		{`"\\u0041"`, `\u0041`, true},
		{`"\\"`, `\`, true},
		{`"null"`, "null", true},
		{`null`, "", false},
		{`1`, "", false},
		{`true`, "", false},
		{`["a"]`, "", false},
		{`{"a":"b"}`, "", false},
	}
	for _, test := range tests {
		v := value(t, test.text)
		if got, ok := v.Text(); got != test.want || ok != test.ok {
			t.Errorf("%s: got %q, %t; want %q, %t", test.text, got, ok, test.want, test.ok)
		}
		if v.IsString() != test.ok {
			t.Errorf("%s: IsString is %t", test.text, v.IsString())
		}
		if v.IsNull() != (test.text == "null") {
			t.Errorf("%s: IsNull is %t", test.text, v.IsNull())
		}
	}
	if _, ok := Value("").Text(); ok {
		t.Error("a value that is not there is a string")
	}
}

func TestNumber(t *testing.T) {
	tests := []struct {
		text string
		want float64
		ok   bool
	}{
		{`0`, 0, true},
		{`-0`, 0, true},
		{`1562262616`, 1562262616, true},
		{`1562262616.5`, 1562262616.5, true},
		{`-1.5E+2`, -150, true},
		{`15e-1`, 1.5, true},
		{`0e0`, 0, true},
		{`1e300`, 1e300, true},
		{`1.7976931348623157e308`, math.MaxFloat64, true},
		{`1e-400`, 0, true}, // nearest is zero, which is a number
		{`9007199254740993`, 9007199254740992, true},
		// What no float64 can hold must not become an infinity, which is later than
		// every iat window's end and compares strangely (int64(1e300) wraps, too).
		{`1e309`, 0, false},
		{`-1e309`, 0, false},
		{`1e999999999999999999999`, 0, false},
		{strings.Repeat("9", 400), 0, false},
		{`"1"`, 0, false}, // RFC 7519 §2, NumericDate: a JSON number
		{`null`, 0, false},
		{`true`, 0, false},
		{`[1]`, 0, false},
		{`{"a":1}`, 0, false},
	}
	for _, test := range tests {
		if got, ok := value(t, test.text).Number(); got != test.want || ok != test.ok {
			t.Errorf("%s: got %v, %t; want %v, %t", test.text, got, ok, test.want, test.ok)
		}
	}
	if _, ok := Value("").Number(); ok {
		t.Error("a value that is not there is a number")
	}
}

func TestScalar(t *testing.T) {
	tests := []struct {
		text, want string
		ok         bool
	}{
		{`"a\u0062"`, "ab", true},
		{`""`, "", true},
		{`1.50`, "1.50", true},
		{`-1e3`, "-1e3", true},
		{`12345678901234567890`, "12345678901234567890", true},
		{`true`, "true", true},
		{`false`, "false", true},
		{`null`, "", false},
		{`[]`, "", false},
		{`{}`, "", false},
	}
	for _, test := range tests {
		if got, ok := value(t, test.text).Scalar(); got != test.want || ok != test.ok {
			t.Errorf("%s: got %q, %t; want %q, %t", test.text, got, ok, test.want, test.ok)
		}
	}
	if _, ok := Value("").Scalar(); ok {
		t.Error("a value that is not there is a scalar")
	}
}

func TestCompact(t *testing.T) {
	for text, want := range map[string]string{
		"[ 1 ,\n\t{ \"a b\" : \" c\\n \" } ]": `[1,{"a b":" c\n "}]`,
		`{ "b" : 1.0 , "a" : null }`:          `{"b":1.0,"a":null}`,
		`"<é\u2028>"`:                         `"<é\u2028>"`,
		`{ }`:                                 `{}`,
	} {
		if got := value(t, text).Compact(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestArray(t *testing.T) {
	tests := []struct {
		text string
		want []string
		ok   bool
	}{
		{`[]`, nil, true},
		{`[ ]`, nil, true},
		{`[1]`, []string{`1`}, true},
		{`[ "a" , [ 1, 2 ] , {"b": [3]} , null ]`, []string{`"a"`, `[ 1, 2 ]`, `{"b": [3]}`, `null`}, true},
		{`["a,b","]"]`, []string{`"a,b"`, `"]"`}, true},
		{`"[]"`, nil, false},
		{`{"a":[]}`, nil, false},
		{`null`, nil, false},
		{`1`, nil, false},
	}
	for _, test := range tests {
		elements, ok := value(t, test.text).Array()
		got := make([]string, len(elements))
		for i := range elements {
			got[i] = string(elements[i])
		}
		if ok != test.ok || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", test.want) {
			t.Errorf("%s: got %q, %t; want %q, %t", test.text, got, ok, test.want, test.ok)
		}
	}
	if _, ok := Value("").Array(); ok {
		t.Error("a value that is not there is an array")
	}
}

func TestObjectWithin(t *testing.T) {
	o, ok := value(t, ` { "a" : {"b": 7} , "c":[] } `).Object()
	if !ok || o.Len() != 2 {
		t.Fatalf("not an object of two members: %v, %t", o, ok)
	}
	inner, _ := o.Get("a")
	o, ok = inner.Object()
	if b, _ := o.Get("b"); !ok || string(b) != "7" {
		t.Errorf("b within a is %s, %t", b, ok)
	}
	for _, text := range []string{`[]`, `"{}"`, `null`, `1`, `[{}]`} {
		if _, ok := value(t, text).Object(); ok {
			t.Errorf("%s is an object", text)
		}
	}
	if _, ok := Value("").Object(); ok {
		t.Error("a value that is not there is an object")
	}
}

func TestValueEndsWhereItsTextEnds(t *testing.T) {
	o := object(t, `{"a": 1 ,"b": "x" , "c":[ 1 ] ,"d":{ } ,"e":true }`)
	for name, want := range map[string]string{"a": `1`, "b": `"x"`, "c": `[ 1 ]`, "d": `{ }`, "e": `true`} {
		if got, _ := o.Get(name); string(got) != want {
			t.Errorf("member %s is %q, not %q", name, got, want)
		}
	}
}
