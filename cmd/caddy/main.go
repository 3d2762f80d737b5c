// Command caddy is Caddy with this plugin compiled in: what xcaddy builds,
// for those who have Go and this repository but not xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-dpop/caddy-dpop"
)

func main() {
	caddycmd.Main()
}
