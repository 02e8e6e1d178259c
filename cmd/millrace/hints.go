package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// counterparts are what users of xargs and GNU Parallel type, and what it is here.
var counterparts = map[string]string{
	"P": "write -j for how many run at the same time",
	"I": "the replacement string is always {}",
	"d": "inputs are lines; write -0 when a NUL byte ends them",
	"n": "every task has one input",
	"N": "every task has one input",
	"L": "every task has one input",
}

var unknownShorthand = regexp.MustCompile(`unknown shorthand flag: '(.)'`)

// mapFlagError says what is meant in place of a flag that map does not have.
func mapFlagError(cmd *cobra.Command, err error) error {
	if own := cmd.Flags().Args(); len(own) > 0 {
		return fmt.Errorf("%w; put -- before the command: millrace map -- %s …", err, quote(own))
	}
	if m := unknownShorthand.FindStringSubmatch(err.Error()); m != nil && counterparts[m[1]] != "" {
		return fmt.Errorf("%w: %s; see millrace map --help", err, counterparts[m[1]])
	}
	return fmt.Errorf("%w; see millrace map --help", err)
}

var numbered = regexp.MustCompile(`\{([0-9]+)(\.|/|//|/\.)?\}`)

// checkReplacements refuses a replacement string for a source of inputs that is not
// there. With one source only a whole argument counts: else it may be some language's
// own, such as the x{3} of a regular expression.
func checkReplacements(command []string, sources int) error {
	for _, arg := range command {
		for _, found := range numbered.FindAllStringSubmatch(arg, -1) {
			n, err := strconv.Atoi(found[1])
			if err == nil && n <= sources || sources == 1 && found[0] != arg {
				continue
			}
			return fmt.Errorf("%s: there is no source of inputs number %s, only %d", found[0], found[1], sources)
		}
	}
	return nil
}

// checkSeparators refuses the linked sources of GNU Parallel.
func checkSeparators(args []string) error {
	if slices.ContainsFunc(args, func(arg string) bool { return arg == ":::+" || arg == "::::+" }) {
		return errors.New(":::+ and ::::+ (linked sources of inputs) are not supported: give the pairs as inputs of one source, or ::: for every combination")
	}
	return nil
}

// explainStart adds to what is wrong with a command what a user of a shell may not know.
func explainStart(name, text string) string {
	switch {
	case !strings.HasSuffix(text, ": command not found"):
		return text
	case strings.ContainsAny(name, " \t\n|&;<>()$`*?") || slices.Contains(builtins, name):
		return text + ": no shell is involved; write sh -c '...'"
	}
	return text
}

// builtins are commands that exist in shells alone.
var builtins = []string{
	".", "alias", "bg", "cd", "eval", "exec", "exit", "export", "fg", "for", "if", "jobs", "read",
	"set", "shift", "source", "trap", "ulimit", "umask", "unset", "while",
}
