package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

var (
	// ErrInUse is returned by Open when another process, or another broker of this
	// one, has the data directory.
	ErrInUse = errors.New("broker: data directory is in use")
	// ErrNewerVersion is returned by Open when a later version of Millrace has written
	// in the data directory.
	ErrNewerVersion = errors.New("broker: data directory was written by a newer version of millrace")
)

// The data directory:
//
//	LOCK                        held while a broker has it open
//	FORMAT                      "millrace 1"
//	topics/NAME.topic/          one a topic
//	    0000000000000001.seg    its log, see package seglog
//	    CHANNEL.ledger          one a channel, see journal
//	    RELEASED                where its first channel will start, see released
//	topics/*.gone               deleted, not yet removed
const (
	formatFile   = "FORMAT"
	formatText   = "millrace "
	format       = 1
	topicSuffix  = ".topic"
	ledgerSuffix = ".ledger"
	goneSuffix   = ".gone"
	releasedFile = "RELEASED"
)

func dirOf(path string) string { return filepath.Dir(path) }

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
	if err := fsys.MkdirAll(b.topicsDir()); err != nil {
		return fmt.Errorf("open data directory: %w", explain(err))
	}
	lock, err := fsys.Lock(filepath.Join(dir, "LOCK"))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	} else if err != nil {
		return fmt.Errorf("open data directory: %w", explain(err))
	}
	b.lock = lock
	b.committer = seglog.NewCommitter(b.opts.Sync)
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
		return fmt.Errorf("open data directory %s: %w", dir, explain(err))
	}
	return nil
}

// checkFormat reads the FORMAT file, or writes it in a new directory. The file is only
// a courtesy: every other file has a version of its own.
func (b *Broker) checkFormat() error {
	path := filepath.Join(b.opts.Dir, formatFile)
	text, err := readFile(b.opts.fs, path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case len(text) > 0:
		digits, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatText)
		n, err := strconv.Atoi(digits)
		if ok && err == nil && n > format {
			return fmt.Errorf("%w: it has format %d, this version reads format %d", ErrNewerVersion, n, format)
		}
		if !ok || err != nil || n < 1 {
			b.damaged(path, 0, int64(len(text)), errors.New("not a format number"))
		}
		return nil
	}
	return b.writeFile(path, fmt.Appendf(nil, "%s%d\n", formatText, format))
}

// loadTopics opens every topic, and finishes deletions that a crash interrupted.
func (b *Broker) loadTopics() error {
	fsys := b.opts.fs
	names, err := fsys.List(b.topicsDir())
	if err != nil {
		return err
	}
	for _, base := range names {
		path := filepath.Join(b.topicsDir(), base)
		if strings.HasSuffix(base, goneSuffix) {
			if err := fsys.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		name, ok := strings.CutSuffix(base, topicSuffix)
		if !ok {
			continue
		}
		t := newTopic(b, name)
		if err := t.ready(); err != nil {
			return fmt.Errorf("topic %s: %w", name, err)
		}
		b.topics[name] = t
	}
	return nil
}

// load opens the topic's log and its channels.
func (t *Topic) load() error {
	b := t.broker
	opts := seglog.Options{OnCommit: t.committed}
	if t.dir != "" {
		if err := b.makeTopicDir(t.dir); err != nil {
			return err
		}
		opts.FS, opts.Dir, opts.Committer, opts.Tail = b.opts.fs, t.dir, b.committer, b.tail
		opts.OnDamage = func(d seglog.Damage) {
			b.damaged(filepath.Join(t.dir, d.File), d.Offset, d.Bytes, d.Err)
		}
	}
	log, err := seglog.Open(opts)
	if errors.Is(err, seglog.ErrNewerVersion) {
		err = fmt.Errorf("%w: %w", ErrNewerVersion, err)
	}
	if err != nil {
		return err
	}
	t.log = log
	if t.dir != "" {
		err = t.loadChannels()
	}
	if err != nil {
		_ = log.Close()
	}
	return err
}

func (b *Broker) makeTopicDir(dir string) error {
	_, err := b.opts.fs.List(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.opts.fs.MkdirAll(dir); err != nil {
		return err
	}
	return b.opts.fs.SyncDir(b.topicsDir())
}

func (t *Topic) loadChannels() error {
	names, err := t.broker.opts.fs.List(t.dir)
	if err != nil {
		return err
	}
	end := t.log.End()
	for _, base := range names {
		name, ok := strings.CutSuffix(base, ledgerSuffix)
		if !ok {
			continue
		}
		l := ledger.New(1)
		ch := newChannel(t, name, end, l)
		err := ch.journal.load(l, func(file string, offset, bytes int64) {
			t.broker.damaged(file, offset, bytes, errors.New("damaged entry of a journal"))
		})
		if err != nil {
			return err
		}
		l.Recovered(end)
		if err := ch.ready(); err != nil {
			return err
		}
		t.channels = append(t.channels, ch)
	}
	if len(t.channels) > 0 {
		t.released = end
		return nil
	}
	return t.loadReleased(end)
}

// removeTopicDir deletes a topic's files. Once the directory has another name, the topic
// is gone, also if the rest has to be done at the next start.
func (b *Broker) removeTopicDir(t *Topic) error {
	for _, ch := range t.Channels() {
		_ = ch.journal.locked(func() error {
			if ch.journal.file != nil {
				_ = ch.journal.file.Close()
				ch.journal.file = nil
			}
			return nil
		})
	}
	gone := strings.TrimSuffix(t.dir, topicSuffix) + goneSuffix
	fsys := b.opts.fs
	if err := fsys.RemoveAll(gone); err != nil {
		return err
	}
	if err := fsys.Rename(t.dir, gone); err != nil {
		return err
	}
	return errors.Join(fsys.SyncDir(b.topicsDir()), fsys.RemoveAll(gone))
}

// RELEASED holds, twice, a magic with version, the topic's released cursor, and the
// crc of both. It is written when the topic's last channel goes.
const (
	releasedMagic = "mr-rels\x01"
	releasedSize  = 20
)

func (t *Topic) saveReleased() error {
	var b []byte
	for range 2 {
		start := len(b)
		b = append(b, releasedMagic...)
		b = binary.LittleEndian.AppendUint64(b, t.limit())
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	}
	return t.broker.writeFile(filepath.Join(t.dir, releasedFile), b)
}

func (t *Topic) loadReleased(end uint64) error {
	path := filepath.Join(t.dir, releasedFile)
	b, err := readFile(t.broker.opts.fs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it never had a channel: all its messages wait
	}
	if err != nil {
		return err
	}
	for at := 0; at+releasedSize <= len(b); at += releasedSize {
		c := b[at : at+releasedSize]
		if string(c[:8]) == releasedMagic && crc32.Checksum(c[:16], castagnoli) == binary.LittleEndian.Uint32(c[16:]) {
			t.released = min(binary.LittleEndian.Uint64(c[8:]), end)
			return nil
		}
		t.broker.damaged(path, int64(at), releasedSize, errors.New("damaged cursor"))
	}
	return nil
}

// writeFile puts a small file in place, whole or not at all, and durably.
func (b *Broker) writeFile(path string, content []byte) error {
	j := journal{broker: b, path: path}
	file, err := j.replace(content)
	if err != nil {
		return err
	}
	return file.Close()
}

func readFile(fsys vfs.FS, path string) ([]byte, error) {
	file, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	size, err := file.Size()
	if err != nil || size == 0 {
		return nil, err
	}
	b := make([]byte, size)
	_, err = file.ReadAt(b, 0)
	return b, err
}

// damaged reports what could not be read and was left out.
func (b *Broker) damaged(file string, offset, bytes int64, err error) {
	b.opts.Logger.Warn("damage on disk", "file", file, "offset", offset, "bytes", bytes, "error", err)
}
