package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// source is one list of inputs: the arguments after a :::, or a file.
type source struct {
	args []string
	file string // of lines; "-" is standard input, "" says that args are the inputs
}

// sep begins a list of inputs on the command line, as in GNU Parallel.
const sep = ":::"

// fileSep begins a list of files that hold inputs, each a source of its own.
const fileSep = "::::"

func isSeparator(arg string) bool { return arg == sep || arg == fileSep }

// cutSources splits arguments at the first ::: or :::: and returns the sources of inputs
// that follow: one for each :::, and one for each file after a ::::.
func cutSources(args []string) (before []string, sources []source) {
	at := slices.IndexFunc(args, isSeparator)
	if at < 0 {
		return args, nil
	}
	files := false
	for _, arg := range args[at:] {
		switch last := len(sources) - 1; {
		case arg == fileSep:
			files = true
		case arg == sep:
			files = false
			sources = append(sources, source{})
		case files:
			sources = append(sources, source{file: arg})
		default:
			sources[last].args = append(sources[last].args, arg)
		}
	}
	return args[:at], sources
}

// inputs reads the inputs of a job. With several sources each input is a combination,
// one of each with NUL bytes between them; the last source changes fastest. All sources
// but the first are held in memory, the first is streamed.
type inputs struct {
	sources   []source
	delimiter byte
	limit     int           // the most bytes of one input
	stop      chan struct{} // closed when no more inputs are wanted: see end
	ended     sync.Once
	cut       atomic.Bool // end came before the end of the inputs
	failed    atomic.Pointer[error]
	total     atomic.Int64 // how many inputs there were, and 1; 0: they have not ended
}

// allRead returns how many inputs there were, and false as long as there may be more.
func (in *inputs) allRead() (total int64, ended bool) {
	n := in.total.Load()
	return n - 1, n > 0
}

// end makes the inputs end.
func (in *inputs) end() { in.ended.Do(func() { close(in.stop) }) }

// errStopped ends the reading of a file in the middle.
var errStopped = errors.New("no more inputs are wanted")

// all yields the inputs. A yielded slice is valid until the next one.
func (in *inputs) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		read := int64(0)
		err := in.each(func(input []byte) bool {
			read++
			return yield(input)
		})
		in.total.Store(read + 1)
		if errors.Is(err, errStopped) {
			in.cut.Store(true)
		} else if err != nil {
			in.failed.Store(&err)
		}
	}
}

// err returns why the inputs ended before their end, nil when they did not.
func (in *inputs) err() error {
	if err := in.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (in *inputs) each(yield func([]byte) bool) error {
	var others [][][]byte
	for _, s := range in.sources[1:] {
		var values [][]byte
		err := in.read(s, func(value []byte) bool {
			values = append(values, bytes.Clone(value))
			return true
		})
		if err != nil {
			return err
		}
		others = append(others, values)
	}
	var combined []byte
	return in.read(in.sources[0], func(value []byte) bool {
		if len(others) == 0 {
			return yield(value)
		}
		combined = append(combined[:0], value...)
		return combine(combined, others, yield)
	})
}

// combine yields prefix followed by each combination of the others.
func combine(prefix []byte, others [][][]byte, yield func([]byte) bool) bool {
	if len(others) == 0 {
		return yield(prefix)
	}
	prefix = append(prefix, 0)
	for _, value := range others[0] {
		if !combine(append(prefix, value...), others[1:], yield) {
			return false
		}
	}
	return true
}

// read yields what one source holds.
func (in *inputs) read(s source, yield func([]byte) bool) error {
	if s.file != "" {
		return in.readFile(s.file, yield)
	}
	for _, arg := range s.args {
		if in.stopped() {
			return errStopped
		}
		if !yield([]byte(arg)) {
			return errStopped
		}
	}
	return nil
}

func (in *inputs) readFile(name string, yield func([]byte) bool) error {
	file := os.Stdin
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return fmt.Errorf("cannot read the inputs: %w", err)
		}
		defer func() { _ = file.Close() }()
	}
	err := in.split(newStoppable(file, in.stop), yield)
	if err != nil && !errors.Is(err, errStopped) {
		return fmt.Errorf("inputs of %s: %w", inputName(name), err)
	}
	return err
}

func inputName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// split yields the lines of r without their delimiter. A last line without one counts.
func (in *inputs) split(r io.Reader, yield func([]byte) bool) error {
	buffered := bufio.NewReaderSize(r, 64<<10)
	var long []byte // the beginning of a line that does not fit the buffer
	for number := 1; ; number++ {
		line, err := buffered.ReadSlice(in.delimiter)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(long)+len(line) > in.limit {
				break
			}
			long = append(long, line...)
			line, err = buffered.ReadSlice(in.delimiter)
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		whole := bytes.TrimSuffix(line, []byte{in.delimiter})
		switch {
		case len(whole) > in.limit:
			return fmt.Errorf("line %d is longer than the %d bytes that a message can hold: split it, or pass the name of a file instead", number, in.limit)
		case err == nil || errors.Is(err, io.EOF) && len(line) > 0:
			if in.stopped() || !yield(whole) {
				return errStopped
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if cap(long) > 1<<20 {
			long = nil
		}
		long = long[:0]
	}
}

func (in *inputs) stopped() bool {
	select {
	case <-in.stop:
		return true
	default:
		return false
	}
}
