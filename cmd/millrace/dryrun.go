package main

import (
	"bufio"
	"io"

	"github.com/millrace/millrace/task"
)

// printCommands writes the command of every input, as a shell would take it. The
// number of the replica, which is not known, is 1.
func (o *mapOptions) printCommands(w io.Writer) error {
	command, err := o.newCommand()
	if err != nil {
		return err
	}
	in := o.newInputs()
	defer in.end()
	out := bufio.NewWriter(w)
	number := uint64(0)
	for input := range in.all() {
		number++
		argv, err := command.Expand(task.Input{Payload: input, Number: number, Slot: 1})
		if err != nil {
			return err
		}
		if _, err := out.WriteString(quote(argv) + "\n"); err != nil {
			return err
		}
	}
	if err := in.err(); err != nil {
		return err
	}
	return out.Flush()
}
