package token

import "testing"

func TestClaim(t *testing.T) {
	claims := object(t, `{
		"sub": "alice",
		"nothing": null,
		"list": [{"name": "a"}],
		"realm_access": {"roles": ["user"], "deep": {"er": {"still": 1}}},
		"https://api.example.com/roles": ["admin"],
		"https://api.example.com/user": {"name": "bob", "e.mail": "b@example.com"},
		"a.b": {"c": 1},
		"a": {"b": {"c": 2, "d": 3}, "b.c": 4, "": 8},
		"x.y.z": 5, "x.y": {"z": 6}, "x": {"y": {"z": 7}},
		".dot": 9,
		"Sub": "mallory"
	}`)
	for path, want := range map[string]string{
		"sub":                                 `"alice"`,
		"Sub":                                 `"mallory"`,
		"nothing":                             `null`,
		"realm_access.roles":                  `["user"]`,
		"realm_access.deep.er.still":          `1`,
		"https://api.example.com/roles":       `["admin"]`,
		"https://api.example.com/user.name":   `"bob"`,
		"https://api.example.com/user.e.mail": `"b@example.com"`,
		"x.y.z":                               `5`, // the longest name first
		"a.b.c":                               `1`,
		"a.b.d":                               `3`, // "a.b" has no d, so a goes on
		"a.":                                  `8`,
		".dot":                                `9`,

		// missing
		"SUB": "", "nope": "", "": "", ".": "", "..": "", "sub.": "", ".sub": "",
		"sub.name":                          "", // not an object
		"nothing.a":                         "",
		"list.name":                         "",
		"list.0":                            "",
		"realm_access.":                     "",
		"realm_access.nope":                 "",
		"realm_access..deep":                "",
		"realm_access.deep.er.still.more":   "",
		"https://api.example.com":           "",
		"https://api.example.com/user.nope": "",
	} {
		got, ok := Claim(claims, path)
		if string(got) != want || ok != (want != "") {
			t.Errorf("%q: got %s, %t; want %s", path, got, ok, want)
		}
	}
}

// sub, else client_id, for the user; RFC 9068 §2.2 for the client.
func TestSubjectAndClientID(t *testing.T) {
	for _, row := range []struct{ claims, subject, client string }{
		{`{"sub":"alice","client_id":"app","azp":"other"}`, "alice", "app"},
		{`{"client_id":"app"}`, "app", "app"},
		{`{"sub":"alice","azp":"app"}`, "alice", "app"},
		{`{"azp":"app"}`, "", "app"},
		{`{"sub":"","client_id":"app"}`, "app", "app"},
		{`{"sub":null,"client_id":"app"}`, "app", "app"},
		{`{"sub":5,"client_id":"app"}`, "5", "app"},
		{`{"sub":["a"],"client_id":"app"}`, "", "app"},
		{`{"sub":["alice"],"client_id":5,"azp":"app"}`, "", "app"},
		{`{"sub":"al\u0069ce","client_id":"","azp":""}`, "alice", ""},
		{`{"SUB":"alice","id":"mallory","username":"mallory","CLIENT_ID":"app"}`, "", ""},
		{`{}`, "", ""},
	} {
		claims := object(t, row.claims)
		if got := Subject(claims); got != row.subject {
			t.Errorf("%s: subject %q, want %q", row.claims, got, row.subject)
		}
		if got := ClientID(claims); got != row.client {
			t.Errorf("%s: client %q, want %q", row.claims, got, row.client)
		}
	}
}
