package seglog

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"github.com/millrace/millrace/internal/vfs"
)

// Redo is a redo log that the logs of a Committer share. With SyncAlways, a round of many
// logs is written to their files, which are synced later, and in one piece to the redo log,
// which is synced at once: so a hundred topics that are published to at the same time cost
// one sync each round, not a hundred. What a power loss takes from the logs' files, OpenRedo
// writes there again.
//
// It has two files. When one is full, the other one takes the rounds, the logs' files are
// synced in the background, and then the first may be overwritten. Its bytes are drawn in
// redofile.go.
//
// It belongs to whoever has the committer's turn.
type Redo struct {
	fs     vfs.FS
	dir    string
	least  int // logs in a round for which it is used
	limit  int64
	files  [2]redoFile
	now    int  // which of the files takes rounds
	broken bool // what its files hold may be nowhere else, so they are left as they are
}

const (
	redoName = "REDO-" // and the number of the file
	// redoLeast is from how many logs on one more write costs less than their syncs.
	redoLeast = 4
	// redoLimit is up to where a file is filled. Two of them is what a busy broker takes of
	// the disk; an idle one gives it back.
	redoLimit = 64 << 20
)

// OpenRedo opens the redo log in dir, which the directories of the logs are in, and brings
// the logs' files up to what was committed before a crash. It is called before any of the
// logs is opened. Damage goes to report, with the file's name in dir. Returns
// ErrNewerVersion, wrapped, and what the file system returns; then nothing may be opened.
func OpenRedo(fsys vfs.FS, dir string, report func(Damage)) (*Redo, error) {
	r := &Redo{fs: fsys, dir: dir, least: redoLeast, limit: redoLimit}
	for i := range r.files {
		r.files[i].name = redoName + string(rune('0'+i))
	}
	return r, r.recover(report)
}

// takes says whether the redo log can take what f has to write, and notes by which name.
func (r *Redo) takes(f *flush) bool {
	// A new file is synced anyway, and a footer vouches for bytes that are synced in their
	// own file.
	if len(f.pieces) != 1 || f.pieces[0].seal != nil || f.pieces[0].seg.file == nil {
		return false
	}
	if l := f.log; l.redoDir == "" {
		dir, err := filepath.Rel(r.dir, l.opts.Dir)
		if err != nil || !filepath.IsLocal(dir) {
			return false
		}
		l.redoDir = dir
	}
	return true
}

// divide takes out of the flushes of a round those that the redo log is to make safe. Of
// few there are none.
func (r *Redo) divide(flushes []*flush) (shared, rest []*flush) {
	if r == nil || r.broken || len(flushes) < r.least {
		return nil, flushes
	}
	bytes := int64(0)
	for _, f := range flushes {
		if !r.takes(f) {
			rest = append(rest, f)
			continue
		}
		shared = append(shared, f)
		bytes += f.pieces[0].to - f.pieces[0].from
	}
	if len(shared) < r.least || !r.room(bytes+int64(len(shared))*maxRedoPiece+redoAlign) {
		return nil, flushes
	}
	return shared, rest
}

// room says whether the file that takes rounds has room for n bytes more, or turns to the
// other one if that is free.
func (r *Redo) room(n int64) bool {
	if f := &r.files[r.now]; !f.busy && f.size+n <= r.limit {
		return true
	}
	return n <= r.limit && r.turn()
}

// turn makes the other file take rounds, if it is free.
func (r *Redo) turn() bool {
	full, other := &r.files[r.now], &r.files[1-r.now]
	if other.busy || full.size == 0 {
		return false
	}
	full.busy = true
	r.now = 1 - r.now
	return true
}

// retired returns the file that takes no more rounds and is to be let free; nil if there is
// none.
func (r *Redo) retired() *redoFile {
	if f := &r.files[1-r.now]; f.busy {
		return f
	}
	return nil
}

// run writes the flushes to their files and makes them safe in the redo log. When it cannot
// it returns them, to be synced one by one.
func (r *Redo) run(flushes []*flush) (unsafe []*flush) {
	var noted error
	var wg sync.WaitGroup
	wg.Go(func() { noted = r.note(flushes) })
	failed := false
	for _, f := range flushes {
		f.run(false)
		failed = failed || f.err != nil
	}
	wg.Wait()
	file := &r.files[r.now]
	if noted == nil && !failed {
		if flushes[0].did.sync(file.file) == nil {
			file.size = file.end
			for _, f := range flushes {
				f.redone = true
			}
			return nil
		}
		r.broken = true // nothing is known of the rounds before either
	}
	return flushes
}

// note writes the round to the file, and does not sync it.
func (r *Redo) note(flushes []*flush) error {
	f := &r.files[r.now]
	if f.file == nil {
		if err := r.create(f); err != nil {
			return err
		}
	}
	if f.size == 0 {
		f.salt = rand.Uint64()
	}
	return f.write(flushes)
}

// create opens the file, and makes sure that a power loss cannot take its name.
func (r *Redo) create(f *redoFile) error {
	name := filepath.Join(r.dir, f.name)
	file, err := r.fs.Create(name)
	if errors.Is(err, fs.ErrExist) {
		file, err = r.fs.Open(name)
	}
	if err != nil {
		return err
	}
	if err := r.fs.SyncDir(r.dir); err != nil {
		_ = file.Close()
		return err
	}
	f.file = file
	return nil
}

// free lets a file be overwritten whose rounds are safe in the logs' files. A spare one
// gives its space back.
func (r *Redo) free(f *redoFile, spare bool) {
	if r.broken {
		return
	}
	f.busy, f.size = false, 0
	if spare {
		_ = f.file.Truncate(0)
	}
}

// close closes the files and, if all that they hold is safe elsewhere, removes them.
func (r *Redo) close(safe bool) {
	for i := range r.files {
		f := &r.files[i]
		if f.file == nil {
			continue
		}
		_ = f.file.Close()
		f.file = nil
		if safe && !r.broken {
			_ = r.fs.Remove(filepath.Join(r.dir, f.name))
		}
	}
}
