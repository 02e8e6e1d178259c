package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// lineBlock is how much is read at a time, and lineRoom the least that is worth it.
	lineBlock = 64 << 10
	lineRoom  = 4 << 10
)

// eachBatch reads lines and emits, whenever something was read, those that are whole: so a
// line goes out at once when they come slowly, and many together when they come fast.
// Blank lines are left out. What is emitted is not overwritten later. At the end of r the
// last line is returned if it has no end.
func eachBatch(r io.Reader, delimiter byte, limit int, emit func([][]byte) error) (last []byte, err error) {
	block := make([]byte, lineBlock)
	from, to := 0, 0 // of the line that is not whole yet
	for number := 1; ; {
		if len(block)-to < lineRoom {
			size := lineBlock
			if to-from > lineBlock/2 {
				size = 2 * (to - from)
			}
			next := make([]byte, size)
			from, to = 0, copy(next, block[from:to])
			block = next
		}
		n, err := r.Read(block[to:])
		end := bytes.LastIndexByte(block[to:to+n], delimiter)
		if end >= 0 {
			end += to + 1
			lines, count, long := splitLines(block[from:end], delimiter, limit)
			from = end
			if len(lines) > 0 {
				if err := emit(lines); err != nil {
					return nil, err
				}
			}
			number += count
			if long {
				return nil, tooLong(number, limit)
			}
		}
		to += n
		switch {
		case to-from > limit:
			return nil, tooLong(number, limit)
		case errors.Is(err, io.EOF):
			return block[from:to], nil
		case err != nil:
			return nil, err
		}
	}
}

// splitLines splits whole lines. count is how many there were; long says that the next one
// is longer than the limit.
func splitLines(text []byte, delimiter byte, limit int) (lines [][]byte, count int, long bool) {
	for line := range bytes.SplitSeq(text[:len(text)-1], []byte{delimiter}) {
		if len(line) > limit {
			return lines, count, true
		}
		if len(line) > 0 {
			lines = append(lines, line)
		}
		count++
	}
	return lines, count, false
}

func tooLong(number, limit int) error {
	return fmt.Errorf("line %d is longer than the %d bytes that a message can have", number, limit)
}
