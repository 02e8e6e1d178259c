package broker

import (
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"

	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/vfs"
)

// A journal keeps a channel's ledger in a file: a snapshot, then what has changed since,
// in entries that may be cut off after any of them. Its bytes are drawn in
// journalformat.go.
//
// When the entries outweigh the snapshot a new file is written beside it and takes its
// place. The file is synced when it is made, when a deferral is to be as safe as a
// message, and when it is closed: what is lost of its end means only that a few messages
// are delivered again.
//
// It belongs to whoever has the topic's turn.
type journal struct {
	fs       vfs.FS
	path     string   // "" for a channel that is not kept
	file     vfs.File // nil before create, and when it is closed
	salt     uint64
	size     int64
	compact  int64 // the size at which a new file is made
	stale    bool  // something could not be written or read: only a new file will do
	unsynced bool
	found    bool // it was opened, not made: what it says may not be safe yet
	scratch  []byte
}

// keptScratch is up to how many bytes of memory a journal keeps for its next entry.
const keptScratch = 64 << 10

// minCompact is the least size at which a new file is made.
const minCompact = 64 << 10

// kept says whether the channel outlives a restart.
func (j *journal) kept() bool { return j.path != "" }

// create makes a new channel durable.
func (j *journal) create(ch *Channel) error {
	if !j.kept() {
		return nil
	}
	err := j.rewrite(ch)
	if err != nil {
		// It may have its name already: the channel must not be there after a restart.
		_ = j.fs.Remove(j.path)
	}
	return err
}

// write appends what has changed in the ledger since the last write.
func (j *journal) write(ch *Channel) error {
	if j.kept() && (j.stale || j.size > j.compact) {
		return j.rewrite(ch)
	}
	j.scratch = append(j.scratch[:0], make([]byte, frameSize)...) // its place
	b := j.scratch
	ch.mu.Lock()
	ch.dirty = false
	b = ch.ledger.AppendJournal(b) // also for nobody: the ledger gathers it until then
	ch.mu.Unlock()
	if j.scratch = b; cap(b) > keptScratch {
		j.scratch = nil
	}
	if !j.kept() || len(b) == frameSize {
		return nil
	}
	putFrame(b, j.salt, j.size)
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		j.stale = true
		return err
	}
	j.size += int64(len(b))
	j.unsynced = true
	return nil
}

// rewrite puts a new file, with nothing but a snapshot, in the place of the old one.
func (j *journal) rewrite(ch *Channel) error { return j.rewriteRewound(ch, math.MaxUint64) }

// rewriteRewound is rewrite with what the ledger would say once it was rewound to that
// sequence number, if that is not beyond its cursor. It is to be rewound at once then.
func (j *journal) rewriteRewound(ch *Channel, to uint64) error {
	ch.mu.Lock()
	ch.dirty = false
	h := journalHeader{salt: rand.Uint64(), floor: min(ch.ledger.Floor(), to), paused: ch.paused}
	b := append(h.appendTwice(nil, j.path), make([]byte, frameSize)...)
	if to <= ch.ledger.Cursor() {
		b = ch.ledger.AppendRewound(b, to)
	} else {
		b = ch.ledger.AppendSnapshot(b)
	}
	whole := len(b)
	b = ch.ledger.AppendJournal(b)[:whole] // the snapshot says it already
	ch.mu.Unlock()
	putFrame(b[headersSize:], h.salt, headersSize)
	file, err := replaceFile(j.fs, j.path, b)
	if err != nil {
		j.stale = true // the old file may have lost its name, and lacks what the ledger has told
		return err
	}
	j.letGo()
	j.file, j.salt, j.stale, j.unsynced, j.found = file, h.salt, false, false, false
	j.size = int64(whole)
	j.compact = max(minCompact, 4*j.size)
	return nil
}

// sync makes safe what the file says, also what a process has left that died before it was.
func (j *journal) sync() error {
	if !j.unsynced && !j.found {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		j.stale = true // nothing is known of what the file holds
		return err
	}
	j.unsynced, j.found = false, false
	return nil
}

// close writes what there is, makes it safe and closes the file.
func (j *journal) close(ch *Channel) error {
	err := j.write(ch)
	if err == nil && j.unsynced {
		err = j.sync()
	}
	j.letGo()
	return err
}

// letGo closes the file.
func (j *journal) letGo() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}

// remove deletes the file.
func (j *journal) remove() error {
	if !j.kept() {
		return nil
	}
	j.letGo()
	if err := j.fs.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it is there still; else an attempt that failed has removed it
	}
	return j.fs.SyncDir(filepath.Dir(j.path))
}

// load reads the journal of a channel whose topic's log ends at end. Entries that are
// damaged are left out and told to damaged: what they said was acked is delivered again.
// paused says that the channel is. Returns ErrNewerVersion, wrapped, and what the file
// system returns.
func (j *journal) load(end uint64, damaged func(offset, bytes int64)) (l *ledger.Ledger, paused bool, err error) {
	file, err := j.fs.Open(j.path)
	if err != nil {
		return nil, false, err
	}
	b, err := vfs.ReadAll(file)
	var h journalHeader
	if err == nil {
		h, err = readHeaders(b, j.path, damaged)
	}
	l = ledger.New(h.floor)
	intact := false
	if err == nil {
		intact, err = replay(b, h.salt, l, damaged)
	}
	if err != nil {
		_ = file.Close()
		return nil, false, err
	}
	l.Recovered(end)
	j.file, j.salt, j.size, j.found = file, h.salt, int64(len(b)), true
	j.compact = max(minCompact, j.size)
	// Begin with a new file, so that damage is found only once.
	j.stale = !intact || !h.intact
	return l, h.paused, nil
}

// replaceFile writes a new file, gives it the name path once it is safe, and returns it
// open. When it fails, path is as before or, if the directory could not be synced, new.
func replaceFile(fsys vfs.FS, path string, content []byte) (vfs.File, error) {
	temp := path + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := fsys.Create(temp)
	if err != nil {
		return nil, err
	}
	if _, err = file.WriteAt(content, 0); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = fsys.Rename(temp, path)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = file.Close()
		_ = fsys.Remove(temp) // if it has that name still
		return nil, err
	}
	return file, nil
}
