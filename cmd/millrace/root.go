package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// newRoot returns the command line with all its commands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace",
		Short: "Spread work over supervised workers and get every answer back",
		Long: `Millrace spreads heavy work over supervised workers and gets every answer back:
exactly one result for each input, whatever dies on the way.`,
		Example:       "  seq 1 1000 | millrace map -- factor {}",
		Version:       version(),
		SilenceErrors: true, // main prints them
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args:                       noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetOut(os.Stdout)
	root.SetErr(os.Stderr)
	root.SetFlagErrorFunc(badFlag)
	root.AddCommand(newMap(), newWork(), newTop(), newScale(), newRetire(), newDrain(), newPause(), newResume(), newServe(false), newPub(), newSub(), newPeek(), newReplay(), newDead(), newVersion())
	return root
}

// badFlag says where the flags are explained.
func badFlag(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
}

// noSuchCommand refuses what the user took for a command.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see " + cmd.CommandPath() + " --help"
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = "did you mean " + similar[0] + "?"
	}
	return fmt.Errorf("unknown command %q; %s", args[0], hint)
}

// version is what the module was built as.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
