package main

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// count returns how many inputs there will be, and false when that cannot be known
// without taking them from somebody: from a pipe, or a terminal.
func (in *inputs) count() (total int64, known bool) {
	total = 1
	for _, s := range in.sources {
		n := int64(len(s.args))
		if s.file != "" {
			if n, known = in.countLines(s.file); !known {
				return 0, false
			}
		}
		total *= n
	}
	return total, true
}

// countLines counts the rest of a regular file, without moving the place to which it
// has been read.
func (in *inputs) countLines(name string) (lines int64, known bool) {
	file, start := os.Stdin, int64(0)
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return 0, false
		}
		defer func() { _ = file.Close() }()
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	if name == "-" {
		if start, err = file.Seek(0, io.SeekCurrent); err != nil {
			return 0, false
		}
	}
	var buf [64 << 10]byte
	open := false // there is a line without an end
	for !in.stopped() {
		n, err := file.ReadAt(buf[:], start)
		start += int64(n)
		lines += int64(bytes.Count(buf[:n], []byte{in.delimiter}))
		if n > 0 {
			open = buf[n-1] != in.delimiter
		}
		if errors.Is(err, io.EOF) {
			if open {
				lines++
			}
			return lines, true
		}
		if err != nil {
			return 0, false
		}
	}
	return 0, false
}
