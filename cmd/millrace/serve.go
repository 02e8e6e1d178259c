package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newServe returns the command that runs the broker. asNSQD is what the program does when
// it is called nsqd: the same, with nsqd's defaults.
func newServe(asNSQD bool) *cobra.Command {
	o := &serveOptions{nsqd: asNSQD}
	cmd := &cobra.Command{
		Use:   "serve --data-path DIR",
		Short: "Run the broker for other programs, with NSQ's protocol and nsqd's HTTP API",
		Long: `Serve runs the broker, whose messages are in the data directory, and lets programs in
by NSQ's TCP protocol and by nsqd's HTTP API, so that every client and tool of NSQ can
use it. Prometheus finds its metrics under /metrics of the HTTP address.

A message that was acknowledged survives the end of the process, and with --sync=always,
the default, the loss of power.

It listens on this machine alone. Before you open it to others with --tcp-address and
--http-address, give it a certificate (--tls-cert, --tls-key, --tls-required) and tokens
(--auth-token-file).

nsqd's flags and its configuration file are understood; those that have no meaning here
are accepted with a note in the log. When the program is called nsqd (by a symbolic link)
it has nsqd's defaults and limits, and flags may have one dash.

SIGTERM and Ctrl-C end it in order. SIGHUP reads the certificates, the tokens and the log
level of the configuration file again.`,
		Example: `  millrace serve --data-path /var/lib/millrace
  millrace serve --data-path DIR --sync 2s --tcp-address :4150 --auth-token-file tokens
  millrace serve --config nsqd.cfg --data-path DIR`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.version {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), nsqdVersion())
				return err
			}
			if err := o.resolve(cmd.Flags()); err != nil {
				return err
			}
			return serve(cmd.Context(), o)
		},
	}
	if asNSQD {
		cmd.Use = "nsqd"
	}
	o.define(cmd.Flags())
	if err := cmd.MarkFlagDirname("data-path"); err != nil {
		panic(err) // no such flag
	}
	complete(cmd, "sync", "always", "never", "2s")
	complete(cmd, "retain", "24h", "168h")
	complete(cmd, "disk-low-water", "1GiB", "10GiB")
	complete(cmd, "log-level", "debug", "info", "warn", "error", "fatal")
	complete(cmd, "tls-required", "true", "false", "tcp-https")
	complete(cmd, "tls-client-auth-policy", "require", "require-verify")
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected %q: %s takes flags only; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
}

// errNoDataPath is returned when serve was not told where its messages are.
var errNoDataPath = errors.New("--data-path: write the directory in which the messages are kept, as in: millrace serve --data-path /var/lib/millrace")

// flagError says what is wrong with the value of a flag.
func flagError(flag, format string, args ...any) error {
	return fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...))
}

// sentence is what the system said, without the words of the function that asked it.
func sentence(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return strings.TrimSuffix(err.Error(), ".")
}
