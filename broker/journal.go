package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"

	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/vfs"
)

// A journal keeps a channel's ledger in a file: a snapshot, then what has changed since,
// in entries that are self-describing and may be applied again.
//
//	┌────────┬────────┬──────────┬───────┬───┬───────┐
//	│ header │ header │ snapshot │ entry │ … │ entry │
//	└────────┴────────┴──────────┴───────┴───┴───────┘
//
// The header stands there twice, because no entry can be checked without its salt:
//
//	0        8      16    20        24
//	┌────────┬──────┬─────┬─────────┐
//	│ magic  │ salt │ crc │ version │   crc over magic, salt and version
//	│ 8      │ u64  │ u32 │ u32     │
//	└────────┴──────┴─────┴─────────┘
//
// Snapshot and entries:
//
//	┌────────┬─────┬───────────────────────┐
//	│ length │ crc │ as package ledger     │   crc over salt, offset, length and content
//	│ u32    │ u32 │ encodes it            │
//	└────────┴─────┴───────────────────────┘
//
// When the entries outweigh the snapshot a new file is written beside it and takes its
// place. The file is synced when it is made and when it is closed: what is lost of its
// end means only that a few messages are delivered again.
type journal struct {
	broker *Broker
	path   string // "" for a channel that is not kept
	// turn holds a token while somebody uses what follows.
	turn     chan struct{}
	file     vfs.File
	salt     uint64
	size     int64
	snapshot int64 // size when the file was made
	stale    bool  // something could not be written: only a new file will do
	scratch  []byte
}

const (
	journalMagic      = "mr-chan\x01"
	journalVersion    = 1
	journalHeader     = 24
	journalHeaders    = 2 * journalHeader
	journalFrame      = 8
	journalMinCompact = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newJournal(b *Broker, path string) *journal {
	return &journal{broker: b, path: path, turn: make(chan struct{}, 1)}
}

// locked runs f with the journal's turn, unless there is nothing to keep.
func (j *journal) locked(f func() error) error {
	if j.path == "" {
		return nil
	}
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	return f()
}

// create makes the channel durable, unless it was loaded from its file.
func (j *journal) create(ch *Channel) error {
	return j.locked(func() error {
		if j.file != nil {
			return nil
		}
		return j.rewrite(ch)
	})
}

// write appends what has changed in the ledger since the last write.
func (j *journal) write(ch *Channel) error {
	return j.locked(func() error { return j.writeChanges(ch) })
}

func (j *journal) writeChanges(ch *Channel) error {
	if j.file == nil {
		return nil
	}
	if j.stale || j.size > max(journalMinCompact, 4*j.snapshot) {
		return j.rewrite(ch)
	}
	b := append(j.scratch[:0], make([]byte, journalFrame)...)
	ch.mu.Lock()
	b = ch.ledger.AppendJournal(b)
	ch.mu.Unlock()
	j.scratch = b
	if len(b) == journalFrame {
		return nil
	}
	j.frame(b, j.size)
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		j.stale = true
		return fmt.Errorf("write the journal of channel %s: %w", ch.name, explain(err))
	}
	j.size += int64(len(b))
	return nil
}

// rewrite puts a new file, with nothing but a snapshot, in the place of the old one.
func (j *journal) rewrite(ch *Channel) error {
	salt := rand.Uint64()
	b := appendJournalHeader(appendJournalHeader(nil, salt), salt)
	b = append(b, make([]byte, journalFrame)...)
	ch.mu.Lock()
	b = ch.ledger.AppendSnapshot(b)
	kept := len(b)
	b = ch.ledger.AppendJournal(b)[:kept] // the snapshot says it already
	ch.mu.Unlock()
	old, oldSalt := j.file, j.salt
	j.salt = salt
	j.frame(b[journalHeaders:], journalHeaders)
	file, err := j.replace(b)
	if err != nil {
		j.stale, j.salt = true, oldSalt
		return fmt.Errorf("write the journal of channel %s: %w", ch.name, explain(err))
	}
	if old != nil {
		_ = old.Close()
	}
	j.file, j.stale, j.size, j.snapshot = file, false, int64(len(b)), int64(len(b))
	return nil
}

// replace writes a new file and gives it the journal's name.
func (j *journal) replace(b []byte) (vfs.File, error) {
	fsys, temp := j.broker.opts.fs, j.path+".tmp"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := fsys.Create(temp)
	if err != nil {
		return nil, err
	}
	if _, err = file.WriteAt(b, 0); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = fsys.Rename(temp, j.path)
	}
	if err == nil {
		err = fsys.SyncDir(dirOf(j.path))
	}
	if err != nil {
		_ = file.Close()
		_ = fsys.Remove(temp)
		return nil, err
	}
	return file, nil
}

// frame fills in length and checksum of an entry whose bytes start at b, at offset.
func (j *journal) frame(b []byte, offset int64) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-journalFrame)) //nolint:gosec // a ledger takes far less than 4 GiB
	binary.LittleEndian.PutUint32(b[4:], journalCRC(j.salt, offset, b[journalFrame:]))
}

func journalCRC(salt uint64, offset int64, content []byte) uint32 {
	var seed [24]byte
	binary.LittleEndian.PutUint64(seed[0:], salt)
	binary.LittleEndian.PutUint64(seed[8:], uint64(offset)) //nolint:gosec // offsets are not negative
	binary.LittleEndian.PutUint64(seed[16:], uint64(len(content)))
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, content)
}

func appendJournalHeader(b []byte, salt uint64) []byte {
	b = append(b, journalMagic...)
	b = binary.LittleEndian.AppendUint64(b, salt)
	b = binary.LittleEndian.AppendUint32(b, journalHeaderCRC(salt, journalVersion))
	return binary.LittleEndian.AppendUint32(b, journalVersion)
}

func journalHeaderCRC(salt uint64, version uint32) uint32 {
	b := append([]byte(journalMagic), make([]byte, 12)...)
	binary.LittleEndian.PutUint64(b[8:], salt)
	binary.LittleEndian.PutUint32(b[16:], version)
	return crc32.Checksum(b, castagnoli)
}

// load reads the journal into l. Entries that are damaged are left out and reported:
// what they said was acked is delivered again.
func (j *journal) load(l *ledger.Ledger, damaged func(file string, offset, bytes int64)) error {
	file, err := j.broker.opts.fs.Open(j.path)
	if err != nil {
		return err
	}
	size, err := file.Size()
	b := make([]byte, size)
	if err == nil && size > 0 {
		_, err = file.ReadAt(b, 0)
	}
	if err == nil {
		err = j.readHeaders(b, damaged)
	}
	if err != nil {
		_ = file.Close()
		return err
	}
	j.file = file
	j.snapshot = size / 4
	for j.size = journalHeaders; j.size < size; {
		n := entryLen(b, j.size, j.salt)
		if n > 0 && l.Replay(b[j.size+journalFrame:j.size+n]) == nil {
			j.size += n
			continue
		}
		next := j.size + 1
		for next < size && entryLen(b, next, j.salt) == 0 {
			next++
		}
		damaged(j.path, j.size, next-j.size)
		if next >= size {
			break // a torn end: write over it
		}
		j.size = next
	}
	j.stale = true // begin with a new file, so that damage is read only once
	return nil
}

// readHeaders takes the salt from whichever header is good. Without one there is nothing
// to go by, and the channel starts over.
func (j *journal) readHeaders(b []byte, damaged func(file string, offset, bytes int64)) error {
	found := false
	for at := 0; at+journalHeader <= min(len(b), journalHeaders); at += journalHeader {
		h := b[at : at+journalHeader]
		salt, version := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint32(h[20:])
		if string(h[:8]) != journalMagic || binary.LittleEndian.Uint32(h[16:]) != journalHeaderCRC(salt, version) {
			damaged(j.path, int64(at), journalHeader)
			continue
		}
		if version != journalVersion {
			return fmt.Errorf("%w: %s has format %d, this version reads format %d", ErrNewerVersion, j.path, version, journalVersion)
		}
		j.salt, found = salt, true
	}
	if !found && len(b) < journalHeaders {
		damaged(j.path, 0, int64(len(b)))
	}
	return nil
}

// entryLen returns how long the good entry at offset is, with its frame; 0 when there is
// none.
func entryLen(b []byte, offset int64, salt uint64) int64 {
	rest := b[offset:]
	if len(rest) < journalFrame {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(rest))
	if n == 0 || n > int64(len(rest)-journalFrame) {
		return 0
	}
	if binary.LittleEndian.Uint32(rest[4:]) != journalCRC(salt, offset, rest[journalFrame:journalFrame+n]) {
		return 0
	}
	return journalFrame + n
}

// close writes what there is, syncs it and closes the file.
func (j *journal) close(ch *Channel) error {
	return j.locked(func() error {
		if j.file == nil {
			return nil
		}
		err := errors.Join(j.writeChanges(ch), j.file.Sync(), j.file.Close())
		j.file = nil
		return err
	})
}

// remove deletes the file.
func (j *journal) remove() error {
	return j.locked(func() error {
		if j.file == nil {
			return nil
		}
		_ = j.file.Close()
		j.file = nil
		fsys := j.broker.opts.fs
		return errors.Join(fsys.Remove(j.path), fsys.SyncDir(dirOf(j.path)))
	})
}
