package caddytest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/mod/modfile"
)

// xcaddy.json says of the plugin what the code says.
func TestManifest(t *testing.T) {
	text, err := os.ReadFile("../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Name, Version, Description, Repository, Licence string
		Caddy                                           struct {
			ModuleID  string `json:"module_id"`
			GoModule  string `json:"go_module"`
			Directive string
		}
		Compatibility struct{ Caddy, Go string }
		CaddyVersion  string `json:"caddy_version"`
		Plugins       []struct {
			ModulePath string `json:"module_path"`
			Version    string
		}
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&manifest); err != nil {
		t.Fatal(err)
	}
	goMod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", goMod, nil)
	if err != nil {
		t.Fatal(err)
	}
	caddyVersion := ""
	for _, require := range mod.Require {
		if require.Mod.Path == "github.com/caddyserver/caddy/v2" {
			caddyVersion = require.Mod.Version
		}
	}
	for _, row := range []struct{ what, got, want string }{
		{"go_module", manifest.Caddy.GoModule, mod.Module.Mod.Path},
		{"repository", manifest.Repository, "https://" + mod.Module.Mod.Path},
		{"compatibility.go", manifest.Compatibility.Go, ">=" + mod.Go.Version},
		{"compatibility.caddy", manifest.Compatibility.Caddy, ">=" + strings.TrimPrefix(caddyVersion, "v")},
		{"caddy_version", manifest.CaddyVersion, caddyVersion},
		{"plugins", manifest.Plugins[0].ModulePath, mod.Module.Mod.Path},
		{"plugins' version", manifest.Plugins[0].Version, "v" + manifest.Version},
		{"licence", manifest.Licence, "Apache-2.0"},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %q, want %q", row.what, row.got, row.want)
		}
	}
	if _, err := caddy.GetModule(manifest.Caddy.ModuleID); err != nil {
		t.Error(err)
	}
	if manifest.Name == "" || manifest.Description == "" {
		t.Error("no name or description")
	}
	if got, ok := adapt(t, "localhost\n"+manifest.Caddy.Directive); ok || !strings.Contains(got, "issuer") {
		t.Errorf("directive: %s", got)
	}
}
