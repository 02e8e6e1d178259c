package nsqwire

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/millrace/millrace"
)

// NSQ's messages have no headers. Ours travel in a line of their own before the body, in
// what NSQ takes for the body and is called the payload here:
//
//	MR1 {"id":"job-7","reply-to":"reply.x"}⏎body
//
// The line is JSON with one way to write each list of headers, so that taking it apart and
// putting it together again gives the same bytes: no spaces; a pair for each header in
// their order, the same key perhaps twice; in strings \" and \\, \u00XX for what is below a
// space, all else as UTF-8. A byte that is no part of UTF-8 is written \udcXX, as Python's
// "surrogateescape" has it. What is not written like this is no line of ours but the
// beginning of a body.
//
// A message without headers has no line, unless its body could be mistaken for one, or is
// empty, which NSQ refuses: then "MR1 {}⏎" stands before it, which means nothing anywhere
// else. So each payload is one message, and each message one payload.

const (
	lineMagic = "MR1 "
	lineOpen  = lineMagic + "{"
	lineClose = "}\n"
	emptyLine = lineOpen + lineClose
)

// HasLine says, after a glance, whether the payload may begin with a line of headers. Of one
// that does not CutHeaders returns all as the body.
func HasLine(payload []byte) bool {
	return len(payload) >= len(lineMagic) && string(payload[:len(lineMagic)]) == lineMagic
}

// NeedsLine says, after a glance, whether AppendLine may append something.
func NeedsLine(h millrace.Headers, body []byte) bool {
	return len(h) > 0 || len(body) == 0 || HasLine(body)
}

// AppendLine appends what stands before the body in the payload of a message: a line with
// its headers, or nothing. The headers are well formed.
func AppendLine(dst []byte, h millrace.Headers, body []byte) []byte {
	if len(h) == 0 {
		if needsEscape(body) {
			dst = append(dst, emptyLine...)
		}
		return dst
	}
	dst = append(dst, lineOpen...)
	first := true
	for key, value := range h.All() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendText(dst, key)
		dst = append(dst, ':')
		dst = appendText(dst, value)
	}
	return append(dst, lineClose...)
}

// CutHeaders takes a payload apart. The headers are appended to space, of which they are a
// part, nil if there are none; the body shares the payload's memory.
func CutHeaders(space millrace.Headers, payload []byte) (grown, headers millrace.Headers, body []byte) {
	if !HasLine(payload) {
		return space, nil, payload
	}
	n := lineLen(payload)
	switch {
	case n == 0, n == len(emptyLine) && !needsEscape(payload[n:]):
		return space, nil, payload
	case n == len(emptyLine):
		return space, nil, payload[n:]
	}
	start := len(space)
	line := payload[len(lineOpen) : n-len(lineClose)]
	for len(line) > 0 {
		space, line = cutText(space, line)     // the key
		space, line = cutText(space, line[1:]) // behind the colon
		line = line[min(1, len(line)):]        // the comma
	}
	return space, space[start:len(space):len(space)], payload[n:]
}

// needsEscape says whether the body of a message without headers would be mistaken if it
// were its payload.
func needsEscape(body []byte) bool {
	for len(body) >= len(emptyLine) && string(body[:len(emptyLine)]) == emptyLine {
		body = body[len(emptyLine):] // means something if what follows does
	}
	return len(body) == 0 || HasLine(body) && lineLen(body) > 0
}

// lineLen returns the length of the line that b begins with, 0 if it is not one of ours.
func lineLen(b []byte) int {
	if len(b) < len(emptyLine) || string(b[:len(lineOpen)]) != lineOpen {
		return 0
	}
	at := len(lineOpen)
	for more := b[at] != lineClose[0]; more; {
		for _, end := range []byte{':', ','} {
			n, _ := textLen(b[at:])
			if at += n; n == 0 || at == len(b) {
				return 0
			}
			if b[at] == end {
				at++
				continue
			}
			if more = false; end == ':' {
				return 0
			}
		}
	}
	if len(b) < at+len(lineClose) || string(b[at:at+len(lineClose)]) != lineClose {
		return 0
	}
	return at + len(lineClose)
}

const lowerHex = "0123456789abcdef"

// appendText appends s as a string of the line.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	plain := 0 // what is before it was appended
	for i := 0; i < len(s); {
		size := 1
		escape := ""
		switch c := s[i]; {
		case c == '"' || c == '\\':
			escape = `\`
		case c < ' ':
			escape = `\u00`
		case c >= utf8.RuneSelf:
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
				escape = `\udc`
			}
		}
		if escape != "" {
			dst = append(append(dst, s[plain:i]...), escape...)
			if c := s[i]; len(escape) == 1 {
				dst = append(dst, c)
			} else {
				dst = append(dst, lowerHex[c>>4], lowerHex[c&15])
			}
			plain = i + 1
		}
		i += size
	}
	return append(append(dst, s[plain:]...), '"')
}

// textLen returns how many bytes the string that b begins with takes, its quotes included,
// and how many it stands for; 0 if b does not begin with a string as appendText writes it.
func textLen(b []byte) (written, meant int) {
	if len(b) == 0 || b[0] != '"' {
		return 0, 0
	}
	raw := false // it has bytes that are written for themselves alone
	for i := 1; i < len(b); meant++ {
		switch c := b[i]; {
		case c == '"':
			if raw && !isTextOf(b[:i+1]) {
				return 0, 0
			}
			return i + 1, meant
		case c == '\\':
			c, size := unescape(b[i:])
			if size == 0 {
				return 0, 0
			}
			raw = raw || c >= utf8.RuneSelf
			i += size
		case c < ' ':
			return 0, 0
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				return 0, 0
			}
			i += size
			meant += size - 1
		}
	}
	return 0, 0
}

// isTextOf says whether appendText would write the string so, whose bytes that are written
// each for itself may be UTF-8 together.
func isTextOf(text []byte) bool {
	var meant []byte
	for i := 1; i < len(text)-1; {
		c, size := text[i], 1
		if c == '\\' {
			c, size = unescape(text[i:])
		}
		meant = append(meant, c)
		i += size
	}
	return string(appendText(nil, string(meant))) == string(text)
}

// unescape returns the byte that an escape stands for, and its size; 0 if it is none that
// appendText writes.
func unescape(b []byte) (c byte, size int) {
	const long = len(`\u00XX`)
	if len(b) >= 2 && (b[1] == '"' || b[1] == '\\') {
		return b[1], 2
	}
	if len(b) < long || unhex[b[4]] == notHex || unhex[b[5]] == notHex {
		return 0, 0
	}
	c = unhex[b[4]]<<4 | unhex[b[5]]
	switch prefix := string(b[:4]); {
	case prefix == `\u00` && c < ' ', prefix == `\udc` && c >= utf8.RuneSelf:
		return c, long
	}
	return 0, 0
}

// cutText takes a string, which was checked, off b, and appends what it stands for to h, as
// half of a pair.
func cutText(h millrace.Headers, b []byte) (millrace.Headers, []byte) {
	written, meant := textLen(b)
	h = binary.AppendUvarint(h, uint64(meant)) //nolint:gosec // not negative
	text, rest := b[1:written-1], b[written:]
	if len(text) == meant {
		return append(h, text...), rest
	}
	for i := 0; i < len(text); {
		c, size := text[i], 1
		if c == '\\' {
			c, size = unescape(text[i:])
		}
		h = append(h, c)
		i += size
	}
	return h, rest
}
