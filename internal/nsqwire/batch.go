package nsqwire

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// A batch is what follows the body size of MPUB, and is the body of a binary /mpub:
//
//	0       4
//	┌───────┬────────────────────────────┐
//	│ count │ count × ( size u32, body ) │   integers big-endian
//	│ u32   │                            │
//	└───────┴────────────────────────────┘

const (
	countSize = 4 // before a batch
	sizeSize  = 4 // before each body
)

// BatchScan finds the end of a batch while its bytes arrive. The zero value, with its
// limits set, is one at the start of a batch.
//
// Like nsqd it goes by the sizes of the messages, whatever the size of the whole was
// said to be.
type BatchScan struct {
	// MaxMessage is the most bytes a message may have, MaxBody the most the batch may.
	MaxMessage, MaxBody int

	count int // of messages
	index int // of the message that stands at pos
	pos   int
	begun bool
}

// Scan goes on with b, which begins where the batch does and holds all that was there in
// the last call. need is the length that b must have before it is worth to call Scan
// again; 0 when the batch is complete, in the first Len bytes of b. The error, which is
// an *Error, is that of nsqd.
func (s *BatchScan) Scan(b []byte) (need int, err error) {
	if !s.begun {
		if len(b) < countSize {
			return countSize, nil
		}
		count := int32(binary.BigEndian.Uint32(b)) //nolint:gosec // negative is an error, below
		if most := (s.MaxBody - countSize) / (sizeSize + 1); count <= 0 || int(count) > most {
			return 0, &Error{BadBody, fmt.Sprintf("MPUB invalid message count %d", count)}
		}
		s.begun, s.count, s.pos = true, int(count), countSize
	}
	for ; s.index < s.count; s.index++ {
		if end := s.pos + sizeSize; end > s.MaxBody {
			return 0, s.tooBig(end)
		}
		if len(b)-s.pos < sizeSize {
			return s.pos + sizeSize, nil
		}
		size := int32(binary.BigEndian.Uint32(b[s.pos:])) //nolint:gosec // negative is an error, below
		if size <= 0 {
			return 0, &Error{BadMessage, fmt.Sprintf("MPUB invalid message(%d) body size %d", s.index, size)}
		}
		if int(size) > s.MaxMessage {
			return 0, &Error{BadMessage, fmt.Sprintf("MPUB message too big %d > %d", size, s.MaxMessage)}
		}
		end := s.pos + sizeSize + int(size)
		if end > s.MaxBody {
			return 0, s.tooBig(end)
		}
		if end > len(b) {
			return end, nil
		}
		s.pos = end
	}
	return 0, nil
}

// tooBig is the error for a batch that has so many bytes at least. nsqd would read on,
// without end.
func (s *BatchScan) tooBig(end int) *Error {
	return &Error{BadBody, fmt.Sprintf("MPUB body too big %d > %d", end, s.MaxBody)}
}

// Len is how many bytes are known to belong to the batch; all of it once it is complete.
func (s *BatchScan) Len() int { return s.pos }

// Count is how many messages the batch has; 0 until that was read.
func (s *BatchScan) Count() int { return s.count }

// Cut is the error for a batch whose bytes end where b does, which was not enough for
// Scan.
func (s *BatchScan) Cut(b []byte) *Error {
	switch {
	case !s.begun:
		return &Error{BadBody, "MPUB failed to read message count"}
	case len(b)-s.pos < sizeSize:
		return &Error{BadMessage, fmt.Sprintf("MPUB failed to read message(%d) body size", s.index)}
	}
	return &Error{BadMessage, "MPUB failed to read message body"}
}

// SplitBatch checks that b is a batch, with or without something behind it, and returns
// how many messages it has; Bodies has them. The error, which is an *Error, is that of
// nsqd.
func SplitBatch(b []byte, maxMessage, maxBody int) (count int, err error) {
	s := BatchScan{MaxMessage: maxMessage, MaxBody: maxBody}
	switch need, err := s.Scan(b); {
	case err != nil:
		return 0, err
	case need > 0:
		return 0, s.Cut(b)
	}
	return s.count, nil
}

// Bodies has the bodies of the messages of a batch that was found to be complete. They
// share its memory.
func Bodies(batch []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		count := binary.BigEndian.Uint32(batch)
		pos := countSize
		for range count {
			size := int(binary.BigEndian.Uint32(batch[pos:]))
			pos += sizeSize
			end := pos + size
			if !yield(batch[pos:end:end]) {
				return
			}
			pos = end
		}
	}
}

// AppendBatch appends a batch of these bodies, of which there is at least one.
func AppendBatch(dst []byte, bodies ...[]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(bodies))) //nolint:gosec // the limits of brokers are far below
	for _, body := range bodies {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(body))) //nolint:gosec // the same
		dst = append(dst, body...)
	}
	return dst
}
