package task

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrNoCommand is returned when a command line is empty.
	ErrNoCommand = errors.New("task: no command")
	// ErrNUL is returned when an input that holds a NUL byte would become an
	// argument: the kernel ends every argument at its first NUL.
	ErrNUL = errors.New("task: the input contains a NUL byte, which no argument can hold; pass it on standard input (--stdin)")
	// ErrSources is returned when a payload does not hold as many inputs as the
	// template has sources.
	ErrSources = errors.New("task: the payload does not hold one input of each source")
)

// Template is a command line in which replacement strings stand for the input, with
// the meaning they have in GNU Parallel:
//
//	{}    the input                 dir/file.tar.gz
//	{.}   without its extension     dir/file.tar
//	{/}   its base name             file.tar.gz
//	{//}  its directory             dir          ("." when it has none)
//	{/.}  base name, no extension   file.tar
//	{#}   the number of the task in its job, from 1
//	{%}   the number of the replica that runs it, from 1
//
// With several sources of inputs (a task is then one combination), {2} {2.} {2/}
// {2//} {2/.} are those of the second source, {} standing alone becomes one argument
// for each source, and {} within a longer argument becomes the inputs with spaces
// between them. What else stands in braces is left as it is.
type Template struct {
	words   []word
	sources int
	// replaces says that there is any replacement string at all.
	replaces bool
}

// word is one argument: a list of literal texts and replacement strings.
type word []piece

type piece struct {
	text string // what is copied when kind is literal
	kind kind
	// source is the number of the source from 1; 0 is the whole input.
	source int
}

type kind uint8

const (
	literal kind = iota
	input
	withoutExtension
	base
	dir
	baseWithoutExtension
	number
	slot
)

// Input is what a template is filled with.
type Input struct {
	// Payload is the input itself. With several sources it holds one of each,
	// separated by NUL bytes.
	Payload []byte
	// Number is that of the task in its job, from 1.
	Number uint64
	// Slot is the number of the replica, from 1.
	Slot int
}

// Parse reads a command line for inputs that come from that many sources; 0 counts
// as 1. Returns ErrNoCommand when there is no command.
func Parse(argv []string, sources int) (*Template, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, ErrNoCommand
	}
	t := &Template{sources: max(sources, 1)}
	for _, arg := range argv {
		w := t.parseWord(arg)
		t.words = append(t.words, w)
		for _, p := range w {
			t.replaces = t.replaces || p.kind != literal
		}
	}
	return t, nil
}

// Replaces says whether the template has any replacement string. GNU Parallel
// appends {} to one that has none, and so does New.
func (t *Template) Replaces() bool { return t.replaces }

// appendInput adds {} as the last argument.
func (t *Template) appendInput() {
	t.words = append(t.words, word{{kind: input}})
	t.replaces = true
}

func (t *Template) parseWord(arg string) word {
	var w word
	text := 0 // where the literal text that is being passed over began
	for at := 0; at < len(arg); {
		p, width := t.parseReplacement(arg[at:])
		if width == 0 {
			at++
			continue
		}
		if text < at {
			w = append(w, piece{text: arg[text:at]})
		}
		w = append(w, p)
		at += width
		text = at
	}
	if text < len(arg) || len(w) == 0 {
		w = append(w, piece{text: arg[text:]})
	}
	return w
}

// parseReplacement reads the replacement string at the beginning of s; width is 0
// when there is none.
func (t *Template) parseReplacement(s string) (p piece, width int) {
	if s[0] != '{' {
		return piece{}, 0
	}
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return piece{}, 0
	}
	inner := s[1:end]
	digits := 0
	for digits < len(inner) && '0' <= inner[digits] && inner[digits] <= '9' {
		digits++
	}
	if digits > 0 {
		n, err := strconv.Atoi(inner[:digits])
		if err != nil || n < 1 || n > t.sources {
			return piece{}, 0
		}
		p.source = n
	}
	switch op := inner[digits:]; {
	case op == "":
		p.kind = input
	case op == ".":
		p.kind = withoutExtension
	case op == "/":
		p.kind = base
	case op == "//":
		p.kind = dir
	case op == "/.":
		p.kind = baseWithoutExtension
	case op == "#" && digits == 0:
		p.kind = number
	case op == "%" && digits == 0:
		p.kind = slot
	default:
		return piece{}, 0
	}
	return p, end + 1
}

// Expand returns the command line for one input. What an input consists of is never
// read as a replacement string. Returns ErrNUL when an argument would hold a NUL
// byte, and an error that wraps ErrSources when the payload is not one of this
// template's.
func (t *Template) Expand(in Input) ([]string, error) {
	argv := make([]string, 0, len(t.words)+t.sources)
	var whole string
	var fields []string
	if t.replaces {
		var err error
		if whole, fields, err = t.split(in.Payload); err != nil {
			return nil, err
		}
	}
	for _, w := range t.words {
		switch {
		case len(w) == 1 && w[0].kind == literal:
			argv = append(argv, w[0].text)
		case len(w) == 1 && w[0].kind == input && w[0].source == 0:
			argv = append(argv, fields...)
		default:
			argv = append(argv, expandWord(w, whole, fields, in))
		}
	}
	return argv, nil
}

func expandWord(w word, whole string, fields []string, in Input) string {
	var b strings.Builder
	for _, p := range w {
		value := whole
		if p.source > 0 {
			value = fields[p.source-1]
		}
		switch p.kind {
		case literal:
			b.WriteString(p.text)
		case input:
			b.WriteString(value)
		case withoutExtension:
			b.WriteString(trimExtension(value))
		case base:
			b.WriteString(baseName(value))
		case dir:
			b.WriteString(dirName(value))
		case baseWithoutExtension:
			b.WriteString(trimExtension(baseName(value)))
		case number:
			b.WriteString(strconv.FormatUint(in.Number, 10))
		case slot:
			b.WriteString(strconv.Itoa(in.Slot))
		}
	}
	return b.String()
}

// split returns the input as {} shows it within a longer argument, and one field for
// each source.
func (t *Template) split(payload []byte) (whole string, fields []string, err error) {
	nuls := bytes.Count(payload, []byte{0})
	if t.sources == 1 {
		if nuls > 0 {
			return "", nil, ErrNUL
		}
		whole = string(payload)
		return whole, []string{whole}, nil
	}
	if nuls != t.sources-1 {
		return "", nil, fmt.Errorf("%w: %d inputs, %d sources", ErrSources, nuls+1, t.sources)
	}
	fields = strings.Split(string(payload), "\x00")
	return strings.Join(fields, " "), fields, nil
}

// The three functions below do what GNU Parallel's Perl expressions do, which is
// why they are not those of path/filepath: these clean nothing.

// trimExtension is s:\.[^/.]+$:: – what follows the last dot of the last element, when
// it is not empty.
func trimExtension(s string) string {
	dot := strings.LastIndexAny(s, "./")
	if dot < 0 || s[dot] == '/' || dot == len(s)-1 {
		return s
	}
	return s[:dot]
}

// baseName is s:.*/:: – what follows the last slash.
func baseName(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// dirName is Perl's File::Basename::dirname, which is dirname(1) of POSIX.
func dirName(s string) string {
	trimmed := strings.TrimRight(s, "/")
	if trimmed == "" {
		if s == "" {
			return "."
		}
		return "/"
	}
	slash := strings.LastIndexByte(trimmed, '/')
	if slash < 0 {
		return "."
	}
	parent := strings.TrimRight(trimmed[:slash], "/")
	if parent == "" {
		return "/"
	}
	return parent
}
