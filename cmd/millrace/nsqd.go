package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/internal/door"
)

// calledNSQD says whether the program was called by nsqd's name.
func calledNSQD(argv0 string) bool {
	return strings.TrimSuffix(filepath.Base(argv0), ".exe") == "nsqd"
}

// runNSQD runs the broker as nsqd would run, and returns the exit status: nsqd's.
func runNSQD(ctx context.Context, args []string) int {
	cmd := newServe(true)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.SetFlagErrorFunc(badFlag)
	cmd.SetOut(os.Stdout)
	cmd.SetArgs(twoDashes(cmd.Flags(), args))
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nsqd: "+explain(err))
		return 1
	}
	return 0
}

// twoDashes returns the arguments with a second dash before each flag that has one. What
// package flag takes as the value of a flag is left alone, whatever it looks like.
func twoDashes(flags *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' || arg == "--" {
			return append(out, args[i:]...) // as in package flag, the flags end here
		}
		name, _, valued := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "h" {
			name, arg = "help", "--help"
		}
		if !strings.HasPrefix(arg, "--") {
			arg = "-" + arg
		}
		out = append(out, arg)
		flag := flags.Lookup(name)
		if flag != nil && !valued && flag.NoOptDefVal == "" && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// nsqdVersion is what -version prints: programs look for nsqd's in it.
func nsqdVersion() string {
	return fmt.Sprintf("nsqd v%s (millrace %s, built w/%s)", door.DefaultVersion, version(), runtime.Version())
}
