package nsqwire

import "encoding/binary"

// A compressed block is the length of the data, a varint, and then elements. Each begins
// with a tag, whose two lowest bits say what it is:
//
//	00 literal   six bits n−1, if below 60            then n bytes
//	             60…63: n−1 follows in 1…4 bytes      then n bytes
//	01 copy      three bits n−4, three bits of the offset above its low byte, which follows
//	10 copy      six bits n−1, the offset follows in 2 bytes
//	11 copy      six bits n−1, the offset follows in 4 bytes
//
// A copy repeats the n bytes that begin offset bytes before the end of the data so far,
// and may run into what it appends itself.
const (
	tagLiteral = 0
	tagCopy1   = 1
	tagCopy2   = 2
	tagCopy4   = 3
)

// appendExpanded appends the data of a compressed block. After an error what it has
// appended means nothing.
func appendExpanded(dst, src []byte) ([]byte, error) {
	size, n := binary.Uvarint(src)
	if n <= 0 || size > SnappyBlock {
		return dst, ErrSnappy
	}
	src = src[n:]
	start := len(dst)
	end := start + int(size) //nolint:gosec // just bounded
	for len(src) > 0 {
		e := parseElement(src)
		if e.taken == 0 || e.length > end-len(dst) {
			return dst, ErrSnappy
		}
		src = src[e.taken:]
		if e.offset == 0 {
			if e.length > len(src) {
				return dst, ErrSnappy
			}
			dst = append(dst, src[:e.length]...)
			src = src[e.length:]
			continue
		}
		if e.offset > len(dst)-start {
			return dst, ErrSnappy
		}
		dst = appendRepeated(dst, e.offset, e.length)
	}
	if len(dst) != end {
		return dst, ErrSnappy
	}
	return dst, nil
}

// element is a literal or, with an offset, a copy.
type element struct {
	length, offset int
	taken          int // bytes before the literal's, or of the copy; 0: it is none
}

// parseElement takes apart the element that src, which is not empty, begins with.
func parseElement(src []byte) element {
	tag := int(src[0])
	var e element
	switch tag & 3 {
	case tagLiteral:
		return parseLiteral(src)
	case tagCopy1:
		if len(src) >= 2 {
			e = element{4 + tag>>2&7, tag >> 5 << 8, 2}
			e.offset |= int(src[1])
		}
	case tagCopy2:
		if len(src) >= 3 {
			e = element{1 + tag>>2, int(binary.LittleEndian.Uint16(src[1:])), 3}
		}
	case tagCopy4:
		if len(src) >= 5 {
			e = element{1 + tag>>2, int(binary.LittleEndian.Uint32(src[1:])), 5}
		}
	}
	if e.offset == 0 {
		return element{}
	}
	return e
}

func parseLiteral(src []byte) element {
	n := int(src[0] >> 2)
	if n < 60 {
		return element{length: n + 1, taken: 1}
	}
	more := n - 59
	if len(src) < 1+more {
		return element{}
	}
	n = 0
	for i := more; i >= 1; i-- {
		n = n<<8 | int(src[i])
	}
	return element{length: n + 1, taken: 1 + more}
}

// appendRepeated appends length bytes that begin offset bytes before the end.
func appendRepeated(dst []byte, offset, length int) []byte {
	from := len(dst) - offset
	for length > offset { // what it appends repeats with the same period
		dst = append(dst, dst[from:from+offset]...)
		length -= offset
	}
	return append(dst, dst[from:from+length]...)
}

const (
	minMatch = 4 // the shortest repetition that is looked for
	hashBits = 13
)

// appendBlock appends data, of at most SnappyBlock bytes, as a compressed block. It looks
// up where it saw the next four bytes last, and where it finds nothing for long it looks
// at fewer and fewer places.
func appendBlock(dst, data []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	var last [1 << hashBits]uint16 // the position, by hash
	written := 0                   // so much of data is in dst
	misses := 0
	for i := 1; i+minMatch <= len(data); {
		word := binary.LittleEndian.Uint32(data[i:])
		hash := word * 0x1e35a7bd >> (32 - hashBits)
		from := int(last[hash])
		last[hash] = uint16(i) //nolint:gosec // below SnappyBlock
		if from >= i || binary.LittleEndian.Uint32(data[from:]) != word {
			misses++
			i += 1 + misses/32
			continue
		}
		length := minMatch
		for i+length < len(data) && data[from+length] == data[i+length] {
			length++
		}
		dst = appendLiteral(dst, data[written:i])
		dst = appendCopy(dst, i-from, length)
		i += length
		written, misses = i, 0
	}
	return appendLiteral(dst, data[written:])
}

func appendLiteral(dst, data []byte) []byte {
	n := len(data) - 1
	switch {
	case n < 0:
		return dst
	case n < 60:
		dst = append(dst, byte(n<<2)|tagLiteral) //nolint:gosec // just bounded
	case n < 1<<8:
		dst = append(dst, 60<<2|tagLiteral, byte(n))
	default:
		dst = append(dst, 61<<2|tagLiteral, byte(n), byte(n>>8)) //nolint:gosec // below SnappyBlock
	}
	return append(dst, data...)
}

// appendCopy appends copies; the offset is below SnappyBlock.
func appendCopy(dst []byte, offset, length int) []byte {
	low, high := byte(offset), byte(offset>>8) //nolint:gosec // the two bytes of it
	for length > 64 {
		n := min(64, length-minMatch) // the rest must not be too short
		dst = append(dst, byte((n-1)<<2)|tagCopy2, low, high)
		length -= n
	}
	if length < 12 && offset < 1<<11 {
		return append(dst, high<<5|byte((length-4)<<2)|tagCopy1, low)
	}
	return append(dst, byte((length-1)<<2)|tagCopy2, low, high)
}
