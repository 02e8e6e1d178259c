//go:build klauspost

package door

import (
	"io"

	"github.com/klauspost/compress/s2"
)

// snappyBlock is the most bytes that a chunk of a snappy stream holds.
const snappyBlock = 64 << 10

// newSnappyWriter compresses each write to chunks of its own, so that nothing is kept back.
func newSnappyWriter(w io.Writer) io.Writer {
	return s2.NewWriter(w, s2.WriterSnappyCompat(), s2.WriterConcurrency(1), s2.WriterFlushOnWrite())
}

func newSnappyReader(r io.Reader) io.Reader {
	return s2.NewReader(r, s2.ReaderMaxBlockSize(snappyBlock), s2.ReaderAllocBlock(snappyBlock))
}
