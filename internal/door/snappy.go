package door

import (
	"io"

	"github.com/millrace/millrace/internal/nsqwire"
)

// snappyWriter compresses each write to chunks of its own, so that nothing is kept back.
type snappyWriter struct {
	w     io.Writer
	buf   []byte
	begun bool
}

func newSnappyWriter(w io.Writer) *snappyWriter { return &snappyWriter{w: w} }

func (s *snappyWriter) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		part := b[written:min(len(b), written+nsqwire.SnappyBlock)]
		s.buf = s.buf[:0]
		if !s.begun {
			s.buf, s.begun = append(s.buf, nsqwire.SnappyMagic...), true
		}
		s.buf = nsqwire.AppendSnappy(s.buf, part)
		if _, err := s.w.Write(s.buf); err != nil {
			return written, err
		}
		written += len(part)
	}
	return written, nil
}

// snappyReader reads what a snappyWriter, or anybody else's, has written.
type snappyReader struct {
	r     io.Reader
	data  []byte // of a chunk, not yet read
	chunk []byte // what was read of the stream last
	plain []byte // what data is in
	begun bool
}

func newSnappyReader(r io.Reader) *snappyReader { return &snappyReader{r: r} }

func (s *snappyReader) Read(b []byte) (int, error) {
	for len(s.data) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.data)
	s.data = s.data[n:]
	return n, nil
}

// next reads a chunk.
func (s *snappyReader) next() error {
	var header [nsqwire.SnappyHeader]byte
	if _, err := io.ReadFull(s.r, header[:]); err != nil {
		return err
	}
	c, err := nsqwire.ParseSnappyHeader(header[:], !s.begun)
	if err != nil {
		return err
	}
	s.begun = true
	if c.Skip() {
		_, err := io.CopyN(io.Discard, s.r, int64(c.Size))
		return err
	}
	if cap(s.chunk) < c.Size {
		s.chunk = make([]byte, c.Size)
	}
	s.chunk = s.chunk[:c.Size]
	if _, err := io.ReadFull(s.r, s.chunk); err != nil {
		return err
	}
	s.plain, err = c.Append(s.plain[:0], s.chunk)
	s.data = s.plain
	return err
}
