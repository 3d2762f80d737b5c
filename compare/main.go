//go:build linux

// Command compare measures Caddy with this plugin: beside Caddy without it and
// Apache with mod_oauth2 (speed), and over time (soak). ./run and ./soak build
// what it needs. All servers, and all load, are on the loopback interface.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("which command: speed or soak?"))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	commands := map[string]func(context.Context, []string) error{"speed": speed, "soak": soak, "sign": sign}
	command, ok := commands[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("no command %q", os.Args[1]))
	}
	if err := command(ctx, os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "compare:", err)
	os.Exit(1)
}
