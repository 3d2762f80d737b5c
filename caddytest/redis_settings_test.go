package caddytest

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// Each wrong setting of the Redis store is an error that names the setting and
// the line.
func TestWrongRedisSettings(t *testing.T) {
	for _, row := range []struct{ lines, setting string }{
		{"", "address"},
		{"foo", "foo"},
		{"address", "address"},
		{"address a:6379\naddress b:6379", "address"},
		{"address a:6379 a", "address"},
		{"address :6379", "address"},
		{"address a:0", "address"},
		{"address a:http", "address"},
		{"address redis://user:hunter2@a:6379", "address"},
		{"address a\nmaster_name", "master_name"},
		{"address a\nmaster_name b c", "master_name"},
		{"address a\nusername b", "password"},
		{"address a\npassword \"\"", "password"},
		{"address a\ndb -1", "db"},
		{"address a\ndb one", "db"},
		{"address a b\ndb 1", "db"},
		{"address a\ntls on", "tls"},
		{"address a\ntls ca", "tls"},
		{"address a\ntls ca x ca y", "tls"},
		{"address a\ntls cert x", "tls"},
		{"address a\ntls ca \"\"", "tls"},
		{"address a\ntls cert \"\" x", "tls"},
		{"address a\ntls cert x \"\"", "tls"},
		{"address a\npassword hunter2 x", "password"},
		{"address a\ntls cert x y cert x y", "tls"},
		{"address a\nkey_prefix \"a b\"", "key_prefix"},
		{"address a\ntimeout 0s", "timeout"},
		{"address a\ntimeout -1s", "timeout"},
		{"address a\ntimeout soon", "timeout"},
		{"address a\non_error ignore", "on_error"},
		{"address a\non_error deny\non_error deny", "on_error"},
		{"address a\nmax_entries 5", "max_entries"},
	} {
		text := "localhost\ndpop {\nissuer https://sso.example.com\naudience https://api.example.com\nreplay redis {\n" + row.lines + "\n}\n}\n"
		got, ok := adapt(t, text)
		if ok {
			t.Errorf("%q was accepted", row.lines)
			continue
		}
		if !strings.Contains(got, row.setting) || !strings.Contains(strings.ToLower(got), "caddyfile:") || strings.Contains(got, "hunter2") {
			t.Errorf("%q: the error does not name the setting and the line: %s", row.lines, got)
		}
	}
	for _, row := range []struct{ json, setting string }{
		{`{}`, "replay.addresses"},
		{`{"addresses":["a"],"Password":"x"}`, "Password"},
		{`{"addresses":["a"],"tls":{"CA_file":"x"}}`, "tls.CA_file"},
		{`{"addresses":["a"],"tls":{"ca_file":"/nowhere/x.pem"}}`, "replay.tls.ca_file"},
		{`{"addresses":["a"],"tls":{"certificate_file":"/nowhere/x.pem","key_file":"y"}}`, "replay.tls"},
		{`{"addresses":["a"],"tls":{"key_file":"y"}}`, "replay.tls"},
		{`{"addresses":["a","b"],"db":1}`, "replay.db"},
		{`{"addresses":["a"],"timeout":0}`, "replay.timeout"},
		{`{"addresses":["a"],"timeout":"5"}`, "timeout"},
		{`{"addresses":["a"],"timeout":250}`, "replay.timeout"},
		{`{"addresses":["a"],"on_error":"Allow"}`, "replay.on_error"},
		{`{"addresses":["{env.DPOP_TEST_NOTHING}"]}`, "replay.addresses[0]"},
		{`{"addresses":["a"],"password":"{env.DPOP_TEST_NOTHING}"}`, "replay.password"},
		{`{"addresses":["a"],"password":"a{hunter2}b"}`, "replay.password"},
	} {
		err := caddy.Validate(decoded(t, redisConfig(row.json)))
		if err == nil || !strings.Contains(err.Error(), row.setting) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", row.json, err)
		}
	}
}

// redisConfig returns a configuration of a site whose replay store is Redis.
func redisConfig(settings string) string {
	settings = strings.TrimSuffix(strings.TrimPrefix(settings, "{"), "}")
	if settings != "" {
		settings = "," + settings
	}
	return fmt.Sprintf(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:%s"],"routes":[{"handle":[
		{"handler":"dpop","issuers":[{"issuer":"https://sso.example.com"}],"audiences":["*"],"replay":{"store":"redis"%s}}]}]}}}}}`, freePort(), settings)
}

// Validating reads files and resolves placeholders, but opens no connection.
func TestValidatingRedisOpensNoConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var connections atomic.Int64
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = connection.Close()
		}
	}()
	root := redistest.NewFiles(t, t.TempDir()).Root
	t.Setenv("DPOP_TEST_ADDRESS", listener.Addr().String())
	t.Setenv("DPOP_TEST_PASSWORD", "hunter2")
	for _, settings := range []string{
		`{"addresses":["{env.DPOP_TEST_ADDRESS}"]}`,
		`{"addresses":["{env.DPOP_TEST_ADDRESS}","127.0.0.1"],"password":"{env.DPOP_TEST_PASSWORD}","timeout":"1s","on_error":"allow"}`,
		`{"addresses":["{env.DPOP_TEST_ADDRESS}"],"master_name":"a","username":"b","password":"c","db":3,"tls":{"ca_file":"` + root + `"},"key_prefix":"d"}`,
		`{"addresses":["{env.DPOP_TEST_ADDRESS}"],"tls":{}}`,
	} {
		if err := caddy.Validate(decoded(t, redisConfig(settings))); err != nil {
			t.Errorf("%s: %v", settings, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}
