package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/vfs"
)

// The file of a run, CHANNEL.ID.later with the ID in hexadecimal: messages of a channel
// that are deferred for long, ordered by due time. It is written once, and safe before the
// journal names it; what of it was read already the journal knows.
//
//	┌────────┬────────┬───────┬───┬───────┐
//	│ header │ header │ block │ … │ block │
//	└────────┴────────┴───────┴───┴───────┘
//
// The header stands there twice, because no block can be checked without its salt. All
// integers are little-endian, all checksums are CRC-32C (Castagnoli).
//
//	0        8         12    16     24     32
//	┌────────┬─────────┬─────┬──────┬──────┐
//	│ magic  │ version │ crc │ salt │ ID   │   crc over all the others
//	│ 8      │ u32     │ u32 │ u64  │ u64  │
//	└────────┴─────────┴─────┴──────┴──────┘
//
// A block is 4096 bytes, so that one that is damaged does not hide those behind it:
//
//	0     4      8      16                                                4096
//	┌─────┬──────┬──────┬────────────────────────────────────────────┬───────┐
//	│ crc │ n    │ next │ n × ( due − last, seq − last, attempt )    │ zeros │
//	│ u32 │ u32  │ i64  │ varints                                    │       │
//	└─────┴──────┴──────┴────────────────────────────────────────────┴───────┘
//	  crc over salt, number of the block, and the rest
//
// next is when the first message of the next block is due. last is the message before, at
// first all zeros; due times and sequence numbers are signed varints, attempts unsigned.
const (
	laterSuffix  = ".later"
	laterMagic   = "mr-later"
	laterVersion = 1
	laterHeader  = 32
	laterHeaders = 2 * laterHeader
	laterBlock   = 4096
	laterFixed   = 16
	// laterMost is the most bytes that one message takes.
	laterMost = 2*binary.MaxVarintLen64 + binary.MaxVarintLen32
	// laterBuffer is how many blocks are written at a time.
	laterBuffer = 64
)

func laterName(channel string, id uint64) string {
	return fmt.Sprintf("%s.%016x%s", channel, id, laterSuffix)
}

// parseLaterName returns what laterName was given.
func parseLaterName(base string) (channel string, id uint64, ok bool) {
	rest, ok := strings.CutSuffix(base, laterSuffix)
	dot := len(rest) - 17
	if !ok || dot < 1 || rest[dot] != '.' {
		return "", 0, false
	}
	id, err := strconv.ParseUint(rest[dot+1:], 16, 64)
	return rest[:dot], id, err == nil && laterName(rest[:dot], id) == base
}

// laterWriter writes the file of a run.
type laterWriter struct {
	fs   vfs.FS
	path string
	file vfs.File
	salt uint64

	buf    []byte // blocks that are not written yet; the last one is being filled
	used   int    // so much of that one is
	n      uint32
	last   ledger.Deferral
	blocks uint64
	due    int64 // of the first message
}

// newLater begins the file of a run, under a name that says that it is not finished.
func newLater(fsys vfs.FS, path string, id uint64) (*laterWriter, error) {
	w := &laterWriter{fs: fsys, path: path, salt: rand.Uint64()}
	temp := path + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := fsys.Create(temp)
	if err != nil {
		return nil, err
	}
	w.file = file
	var b []byte
	for range 2 {
		start := len(b)
		b = append(b, laterMagic...)
		b = binary.LittleEndian.AppendUint32(b, laterVersion)
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint64(b, w.salt)
		b = binary.LittleEndian.AppendUint64(b, id)
		putCRC(b[start:], path)
	}
	if _, err = file.WriteAt(b, 0); err != nil {
		w.abandon()
		return nil, err
	}
	return w, nil
}

// add appends a message, which is due no earlier than the one before.
func (w *laterWriter) add(d ledger.Deferral) error {
	if w.n > 0 && w.used+laterMost > laterBlock {
		w.seal(d.Due)
		if len(w.buf) == laterBuffer*laterBlock {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	if w.n == 0 {
		if w.blocks == 0 {
			w.due = d.Due
		}
		w.buf = append(w.buf, make([]byte, laterBlock)...)
		w.used, w.last = laterFixed, ledger.Deferral{}
		w.blocks++
	}
	b := w.buf[len(w.buf)-laterBlock:]
	w.used += binary.PutVarint(b[w.used:], d.Due-w.last.Due)
	w.used += binary.PutVarint(b[w.used:], int64(d.Seq-w.last.Seq)) //nolint:gosec // modulo 2^64
	w.used += binary.PutUvarint(b[w.used:], uint64(d.Attempt))
	w.n++
	w.last = d
	return nil
}

// seal ends the block that is being filled.
func (w *laterWriter) seal(next int64) {
	b := w.buf[len(w.buf)-laterBlock:]
	binary.LittleEndian.PutUint32(b[4:], w.n)
	binary.LittleEndian.PutUint64(b[8:], uint64(next)) //nolint:gosec // two's complement, read back the same way
	binary.LittleEndian.PutUint32(b, laterCRC(b, w.salt, w.blocks-1))
	w.n = 0
}

func (w *laterWriter) flush() error {
	at := laterHeaders + int64(w.blocks)*laterBlock - int64(len(w.buf)) //nolint:gosec // far below 2^63
	_, err := w.file.WriteAt(w.buf, at)
	w.buf = w.buf[:0]
	return err
}

// finish makes the file safe under its name, and returns how many blocks it has and when
// its first message is due. Without messages, or when it fails, there is no file.
func (w *laterWriter) finish() (blocks uint64, due int64, err error) {
	if w.n > 0 {
		w.seal(0)
	}
	if err = w.flush(); err == nil && w.blocks > 0 {
		err = w.file.Sync()
	}
	if err != nil || w.blocks == 0 {
		w.abandon()
		return 0, 0, err
	}
	if err = errors.Join(w.file.Close(), w.fs.Rename(w.path+tempSuffix, w.path)); err == nil {
		err = w.fs.SyncDir(filepath.Dir(w.path))
	} else {
		_ = w.fs.Remove(w.path + tempSuffix) // if it has that name still
	}
	return w.blocks, w.due, err
}

// abandon removes what there is of the file.
func (w *laterWriter) abandon() {
	_ = w.file.Close()
	_ = w.fs.Remove(w.path + tempSuffix)
}

// laterReader reads the blocks of a run.
type laterReader struct {
	file vfs.File
	salt uint64
	buf  []byte
}

// openLater opens the file of a run; what of its headers is damaged is told to damaged.
// Returns errDamaged, wrapped, when it is not there or not one block can be read;
// ErrNewerVersion, wrapped, and what the file system returns.
func openLater(fsys vfs.FS, path string, id uint64, damaged func(offset, bytes int64)) (*laterReader, error) {
	file, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	r := &laterReader{file: file, buf: make([]byte, laterBlock)}
	if err := r.readHeaders(path, id, damaged); err != nil {
		_ = file.Close()
		return nil, err
	}
	return r, nil
}

func (r *laterReader) close() { _ = r.file.Close() }

// readHeaders takes the salt from whichever header is good.
func (r *laterReader) readHeaders(path string, id uint64, damaged func(offset, bytes int64)) error {
	b := make([]byte, laterHeaders)
	if n, err := r.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if b = b[:n]; n < laterHeaders {
		return fmt.Errorf("%w: %d bytes are no run", errDamaged, n)
	}
	good := false
	for at := 0; at < laterHeaders; at += laterHeader {
		h := b[at : at+laterHeader]
		if string(h[:8]) != laterMagic || !goodCRC(h, path) || binary.LittleEndian.Uint64(h[24:]) != id {
			damaged(int64(at), laterHeader)
			continue
		}
		if version := binary.LittleEndian.Uint32(h[8:]); version != laterVersion {
			return newerVersion(version, laterVersion)
		}
		r.salt, good = binary.LittleEndian.Uint64(h[16:]), true
	}
	if !good {
		return fmt.Errorf("%w: the run has no good header", errDamaged)
	}
	return nil
}

// block returns the messages of a block, and when the next one begins to be due. Returns
// errDamaged, wrapped, and what the file system returns.
func (r *laterReader) block(at uint64) (ds []ledger.Deferral, next int64, err error) {
	b := r.buf
	n, err := r.file.ReadAt(b, laterHeaders+int64(at)*laterBlock) //nolint:gosec // far below 2^63
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if n < laterBlock || binary.LittleEndian.Uint32(b) != laterCRC(b, r.salt, at) {
		return nil, 0, errDamaged
	}
	count := binary.LittleEndian.Uint32(b[4:])
	next = int64(binary.LittleEndian.Uint64(b[8:])) //nolint:gosec // see seal
	var last ledger.Deferral
	for b = b[laterFixed:]; count > 0; count-- {
		due, n1 := binary.Varint(b)
		seq, n2 := binary.Varint(b[max(n1, 0):])
		attempt, n3 := binary.Uvarint(b[max(n1, 0)+max(n2, 0):])
		if n1 <= 0 || n2 <= 0 || n3 <= 0 {
			return nil, 0, errDamaged
		}
		last = ledger.Deferral{Seq: last.Seq + uint64(seq), Due: last.Due + due, Attempt: uint32(attempt)} //nolint:gosec // as add wrote them
		ds = append(ds, last)
		b = b[n1+n2+n3:]
	}
	return ds, next, nil
}

// laterCRC is the checksum of a block.
func laterCRC(b []byte, salt, at uint64) uint32 {
	var seed [16]byte
	binary.LittleEndian.PutUint64(seed[0:], salt)
	binary.LittleEndian.PutUint64(seed[8:], at)
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, b[4:laterBlock])
}
