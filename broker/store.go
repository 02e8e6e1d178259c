package broker

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

var (
	// ErrInUse is returned by Open when another process, or another broker of this
	// one, has the data directory.
	ErrInUse = errors.New("broker: data directory is in use")
	// ErrNewerVersion is returned by Open when a later version of Millrace has written
	// in the data directory.
	ErrNewerVersion = errors.New("broker: written by a newer version of millrace")
)

// The data directory:
//
//	LOCK                        held while a broker has it open
//	FORMAT                      "millrace 1", and its checksum
//	REDO-0 REDO-1               what was committed to many topics at a time, see seglog.Redo
//	topics/NAME.topic/          one a topic
//	    0000000000000001.seg    its log, see package seglog
//	    CHANNEL.ledger          one a channel, see journal
//	    CHANNEL.ID.later        what it has deferred for long, see laterWriter
//	    RELEASED                where its first channel starts and if it is paused, see releasedFile
//	topics/NAME.gone/           deleted, not yet removed
//	*.tmp                       not finished
const (
	lockName     = "LOCK"
	formatName   = "FORMAT"
	format       = 1
	topicSuffix  = ".topic"
	ledgerSuffix = ".ledger"
	goneSuffix   = ".gone"
	tempSuffix   = seglog.TempSuffix
)

func (b *Broker) topicsDir() string { return filepath.Join(b.opts.Dir, "topics") }

func (b *Broker) topicDir(name string) string {
	return filepath.Join(b.topicsDir(), name+topicSuffix)
}

func journalPath(topicDir, channel string) string {
	return filepath.Join(topicDir, channel+ledgerSuffix)
}

// openDir takes the data directory and opens the topics in it.
func (b *Broker) openDir() error {
	fsys, dir := b.opts.fs, b.opts.Dir
	unusable := func(err error) error {
		return fmt.Errorf("data directory %s cannot be used: %w; %s", dir, explain(err), advice(err))
	}
	for _, d := range []string{dir, b.topicsDir()} {
		if err := makeDirs(fsys, d); err != nil {
			return unusable(err)
		}
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w (%w): stop the other process or choose another directory", ErrInUse, err)
	} else if err != nil {
		return unusable(err)
	}
	b.lock = lock
	redo, err := seglog.OpenRedo(fsys, dir, func(d seglog.Damage) {
		b.damaged(filepath.Join(dir, d.File), d.Offset, d.Bytes, d.Err)
	})
	if err != nil {
		_ = lock.Close()
		if errors.Is(err, seglog.ErrNewerVersion) {
			err = newerLog{err}
		}
		return unusable(err)
	}
	b.committer = seglog.NewCommitter(b.opts.Sync, redo)
	b.tail = seglog.NewTail(tailBudget)
	if err = b.checkFormat(); err == nil {
		err = b.loadTopics()
	}
	if err != nil {
		for _, t := range b.topics {
			_ = t.close()
		}
		b.committer.Close()
		_ = lock.Close()
		return unusable(err)
	}
	return nil
}

// advice says what somebody can do whose data directory cannot be used.
func advice(err error) string {
	switch {
	case errors.Is(err, ErrNewerVersion):
		return "use that version, or choose another directory"
	case errors.Is(err, syscall.ENOTDIR):
		return "a file stands there: choose another name"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room, or choose another directory"
	default:
		return "make it readable and writable, or choose another directory"
	}
}

// checkFormat reads the FORMAT file, or writes it in a new directory. The file is only
// a courtesy to later versions: every other file has a version of its own.
func (b *Broker) checkFormat() error {
	path := filepath.Join(b.opts.Dir, formatName)
	text, err := vfs.ReadFile(b.opts.fs, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(text) == formatLine(format) {
		return nil
	}
	var has uint32
	if n, _ := fmt.Sscanf(string(text), "millrace %d", &has); n == 1 && has > format && string(text) == formatLine(has) {
		return newerVersion(has, format)
	}
	if len(text) > 0 {
		b.damaged(path, 0, int64(len(text)), errDamaged)
	}
	file, err := replaceFile(b.opts.fs, path, []byte(formatLine(format)))
	if err != nil {
		return err
	}
	return file.Close()
}

// formatLine is what FORMAT says. The checksum keeps a flipped bit from looking like
// another version.
func formatLine(version uint32) string {
	text := fmt.Sprintf("millrace %d", version)
	return fmt.Sprintf("%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// loadTopics opens every topic, and finishes deletions that a crash interrupted.
func (b *Broker) loadTopics() error {
	fsys, dir := b.opts.fs, b.topicsDir()
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	// A process may have died between making a directory and making that safe.
	if err := errors.Join(fsys.SyncDir(dir), fsys.SyncDir(b.opts.Dir)); err != nil {
		return err
	}
	for _, base := range names {
		if strings.HasSuffix(base, goneSuffix) {
			if err := fsys.RemoveAll(filepath.Join(dir, base)); err != nil {
				return err
			}
			continue
		}
		name, ok := strings.CutSuffix(base, topicSuffix)
		if !ok || millrace.CheckName(name) != nil {
			continue // not ours
		}
		t := newTopic(b, name)
		if err := t.ready(); err != nil {
			return fmt.Errorf("topic %s: %w", name, err)
		}
		b.topics[name] = t
	}
	return nil
}

// removeTopicDir deletes a topic's files. Once the directory has another name, the topic
// is gone, also if the rest has to be done at the next start.
func (b *Broker) removeTopicDir(t *Topic) error {
	fsys := b.opts.fs
	gone := strings.TrimSuffix(t.dir, topicSuffix) + goneSuffix
	if _, err := fsys.List(gone); err == nil {
		// An attempt that failed has left it, and nobody knows yet that it is gone for good.
		if err := fsys.SyncDir(b.topicsDir()); err != nil {
			return err
		}
		if err := fsys.RemoveAll(gone); err != nil {
			return err
		}
	}
	if err := fsys.Rename(t.dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it has its name still; else an attempt that failed has taken it
	}
	if err := fsys.SyncDir(b.topicsDir()); err != nil {
		return err
	}
	if err := fsys.RemoveAll(gone); err != nil {
		b.opts.Logger.Warn("the files of a deleted topic stay until the next start", "topic", t.name, "error", err)
	}
	return nil
}

// errDamaged is what is reported of a file whose checksum is wrong.
var errDamaged = errors.New("damaged bytes")

// damaged reports what could not be read and was left out.
func (b *Broker) damaged(file string, offset, bytes int64, err error) {
	if !errors.Is(err, seglog.ErrTorn) {
		b.damages.Add(1)
	}
	b.opts.Logger.Warn("damage on disk", "file", file, "offset", offset, "bytes", bytes, "error", err)
}

// makeDirs makes the directory and those above it that are missing, durably: one after the
// other, so that of what a process finds that died while it did so, only the last may not be
// safe yet.
func makeDirs(fsys vfs.FS, dir string) error {
	var missing []string // the deepest first
	d := filepath.Clean(dir)
	for ; d != filepath.Dir(d); d = filepath.Dir(d) {
		_, err := fsys.List(d)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, d)
	}
	// Somebody else's directory, which we may not read, is not one that we made.
	if err := fsys.SyncDir(filepath.Dir(d)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, d := range slices.Backward(missing) {
		if err := makeDir(fsys, d); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes the directory durably, if it is not there.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.List(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}
