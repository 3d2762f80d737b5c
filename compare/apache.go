//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debian's packages have them there.
const apacheModules = "/usr/lib/apache2/modules"

// apacheDefaultEntries is how large mod_oauth2's cache is by default.
const apacheDefaultEntries = 1000

// findApache returns Apache's program, or an error that says what is missing.
func findApache() (string, error) {
	binary, err := exec.LookPath("apache2")
	if err != nil {
		binary, err = exec.LookPath("/usr/sbin/apache2")
	}
	if err != nil {
		return "", fmt.Errorf("no apache2: Debian's package apache2-bin")
	}
	if _, err := os.Stat(filepath.Join(apacheModules, "mod_oauth2.so")); err != nil {
		return "", fmt.Errorf("no mod_oauth2: Debian's package libapache2-mod-oauth2")
	}
	return binary, nil
}

// startApache starts Apache with mod_oauth2, whose settings are its defaults where
// they can be: for a cache of another size than its default one, values have less
// room, so that it fits in memory. MPM settings are Debian's.
func startApache(binary, dir string, entries int, iss *issuer, backend string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	var user string
	if os.Getuid() == 0 {
		user = "User www-data\nGroup www-data"
		if err := os.Chmod(dir, 0o755); err != nil {
			return nil, err
		}
	}
	options := "type=dpop&verify.exp=required&verify.iat=optional&verify.iat.slack_before=3600"
	var cache string
	name := "Apache, mod_oauth2"
	if entries != apacheDefaultEntries {
		cache = fmt.Sprintf("OAuth2Cache shm name=default\nOAuth2Cache shm name=proofs&max_entries=%d&max_val_size=2048", entries)
		options += "&verify.cache=default&dpop.cache=proofs"
		name += fmt.Sprintf(", cache of %d", entries)
	}
	config := fmt.Sprintf(`ServerRoot %[1]q
DefaultRuntimeDir %[1]q
PidFile %[2]q
ErrorLog %[3]q
LogLevel warn
Listen %[4]s
ServerName http://%[4]s
%[5]s
LoadModule mpm_event_module %[6]s/mod_mpm_event.so
LoadModule authn_core_module %[6]s/mod_authn_core.so
LoadModule authz_core_module %[6]s/mod_authz_core.so
LoadModule authz_user_module %[6]s/mod_authz_user.so
LoadModule proxy_module %[6]s/mod_proxy.so
LoadModule proxy_http_module %[6]s/mod_proxy_http.so
LoadModule oauth2_module %[6]s/mod_oauth2.so
StartServers 2
MinSpareThreads 25
MaxSpareThreads 75
ThreadsPerChild 25
MaxRequestWorkers 150
KeepAlive On
MaxKeepAliveRequests 0
%[7]s
<Location "/">
	AuthType oauth2
	OAuth2AcceptTokenIn header name=Authorization&type=dpop
	OAuth2TokenVerify jwk "%[8]s" %[9]s
	Require valid-user
	ProxyPass "http://%[10]s/"
</Location>
`, dir, filepath.Join(dir, "pid"), filepath.Join(dir, "errors"), address, user, apacheModules, cache,
		strings.ReplaceAll(iss.jwk(), `"`, `\"`), options, backend)
	file := filepath.Join(dir, "httpd.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := start(dir, binary, "-f", file, "-DFOREGROUND")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, address: address, log: filepath.Join(dir, "errors"), process: p, protects: true, apache: true,
		// In the ten seconds for which it remembers proofs, not more than its cache can hold.
		batch: entries / 3}
	if err := s.await(iss); err != nil {
		s.stop()
		log, _ := os.ReadFile(s.log)
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return s, nil
}
