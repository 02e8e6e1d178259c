package nsqwire

import "bytes"

// MaxLine is the longest command line, its newline included: what nsqd's read buffer
// takes.
const MaxLine = 16 << 10

// Command is a command line taken apart. Its parts share memory with the line.
type Command struct {
	// Name is what stands first, whether or not there is such a command.
	Name []byte
	// Params are the first parameters; Count says how many there are on the line.
	Params [2][]byte
	Count  int
}

// ParseCommand takes apart a command line, with or without its newline: parts are
// separated by single spaces, and "\r\n" ends a line like "\n".
func ParseCommand(line []byte) Command {
	line = bytes.TrimSuffix(line, newline)
	line = bytes.TrimSuffix(line, carriage)
	var c Command
	var more bool
	c.Name, line, more = bytes.Cut(line, space)
	for more {
		var param []byte
		param, line, more = bytes.Cut(line, space)
		if c.Count < len(c.Params) {
			c.Params[c.Count] = param
		}
		c.Count++
	}
	return c
}

var (
	space    = []byte(" ")
	newline  = []byte("\n")
	carriage = []byte("\r")
)

// ParseNumber reads a number as nsqd does: decimal digits alone, no sign; nothing is 0,
// and more than a uint64 holds wraps around. False for anything else.
func ParseNumber(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
