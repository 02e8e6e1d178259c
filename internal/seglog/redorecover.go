package seglog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/millrace/millrace/internal/vfs"
)

// recover writes what the redo log holds to the segments that it belongs to, and makes that
// safe. Bytes of a segment never change; so the order does not matter, nor that some of
// them are there already.
func (r *Redo) recover(report func(Damage)) error {
	type place struct {
		dir        string
		base, salt uint64
	}
	segments := make(map[place][]redoPiece)
	var order []place
	for i := range r.files {
		f := &r.files[i]
		pieces, err := r.load(f, report)
		if err != nil {
			return fmt.Errorf("read redo log %s: %w", f.name, err)
		}
		for _, p := range pieces {
			at := place{p.dir, p.base, p.salt}
			if segments[at] == nil {
				order = append(order, at)
			}
			segments[at] = append(segments[at], p)
		}
	}
	for _, at := range order {
		if err := r.restore(segments[at]); err != nil {
			return fmt.Errorf("restore segment %s from the redo log: %w", filepath.Join(at.dir, segmentName(at.base)), err)
		}
	}
	for i := range r.files {
		if f := &r.files[i]; f.found {
			if err := r.fs.Remove(filepath.Join(r.dir, f.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads a file, and returns the pieces of its rounds. A bad one before a good one is
// damage. One behind which there is none is a round that was not finished, or the end of
// the generation before.
func (r *Redo) load(f *redoFile, report func(Damage)) ([]redoPiece, error) {
	file, err := r.fs.Open(filepath.Join(r.dir, f.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	f.found = true
	b, err := vfs.ReadAll(file)
	if err != nil {
		return nil, err
	}
	if ok, err := f.parseHeader(b); !ok {
		return nil, err
	}
	var all []redoPiece
	bad := int64(0) // where what cannot be read begins
	for at := int64(redoAlign); at < int64(len(b)); {
		pieces, end := f.round(b, at)
		if end == 0 {
			if bad == 0 {
				bad = at
			}
			at += redoAlign
			continue
		}
		if bad != 0 {
			report(Damage{File: f.name, Offset: bad, Bytes: at - bad, Err: ErrDamaged})
			bad = 0
		}
		all = append(all, pieces...)
		at = (end + redoAlign - 1) / redoAlign * redoAlign
	}
	return all, nil
}

// restore writes pieces of one segment. One that is gone was consumed, one with another
// salt is another, and one with a footer has all its bytes.
func (r *Redo) restore(pieces []redoPiece) (err error) {
	p := pieces[0]
	if !filepath.IsLocal(p.dir) {
		return nil
	}
	file, err := r.fs.Open(filepath.Join(r.dir, p.dir, segmentName(p.base)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Size()
	if err != nil {
		return err
	}
	if _, err := readFooter(file, size); err == nil || !errors.Is(err, errBadFooter) {
		return err
	}
	if !hasSalt(file, p.base, p.salt) {
		return nil
	}
	for _, p := range pieces {
		if _, err := file.WriteAt(p.bytes, p.offset); err != nil {
			return err
		}
	}
	return file.Sync()
}

// hasSalt says whether one of the file's headers has these.
func hasSalt(file vfs.File, base, salt uint64) bool {
	b := make([]byte, headersSize)
	n, _ := file.ReadAt(b, 0)
	for at := 0; at+headerSize <= n; at += headerSize {
		if h, err := parseHeader(b[at:]); err == nil && h.base == base && h.salt == salt {
			return true
		}
	}
	return false
}
