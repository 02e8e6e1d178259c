package vfs

import (
	"fmt"
	"io"
)

// OpKind is one method of FS or File.
type OpKind uint8

// The methods, in the order of their interfaces.
const (
	OpCreate OpKind = iota
	OpOpen
	OpRemove
	OpRemoveAll
	OpRename
	OpMkdirAll
	OpList
	OpSyncDir
	OpLock
	OpFree
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpSize
	OpClose
)

var opNames = [...]string{
	"create", "open", "remove", "removeall", "rename", "mkdirall", "list", "syncdir", "lock", "free",
	"read", "write", "sync", "truncate", "size", "close",
}

// String is the method's name in lower case.
func (k OpKind) String() string { return opNames[k] }

// Op is a call that is about to be made.
type Op struct {
	Kind OpKind
	// Name is the file or directory, as its name was given to the FS.
	Name string
	// To is the new name, of an OpRename.
	To string
	// Off is where in the file, of an OpRead and OpWrite; the size, of an OpTruncate.
	Off int64
	// Len is how many bytes, of an OpRead and OpWrite.
	Len int64
}

// String is one readable line for a record of calls: "write log/1 +4096 at 512".
func (o Op) String() string {
	switch o.Kind {
	case OpRename:
		return fmt.Sprintf("%s %s to %s", o.Kind, o.Name, o.To)
	case OpRead, OpWrite:
		return fmt.Sprintf("%s %s +%d at %d", o.Kind, o.Name, o.Len, o.Off)
	case OpTruncate:
		return fmt.Sprintf("%s %s to %d", o.Kind, o.Name, o.Off)
	default:
		return fmt.Sprintf("%s %s", o.Kind, o.Name)
	}
}

// Inject is fs with before in front of each call of it and of its files. When before
// returns an error, the call is not made and returns this error. It is called in the
// caller's goroutine, so it may be called concurrently, and may itself use fs: to let
// a crash happen at the nth write, for example. Closing a lock is not announced.
func Inject(fs FS, before func(Op) error) FS { return &injectFS{fs, before} }

type injectFS struct {
	fs     FS
	before func(Op) error
}

func (i *injectFS) Create(name string) (File, error) {
	return i.file(OpCreate, name, i.fs.Create)
}

func (i *injectFS) Open(name string) (File, error) {
	return i.file(OpOpen, name, i.fs.Open)
}

func (i *injectFS) file(kind OpKind, name string, open func(string) (File, error)) (File, error) {
	if err := i.before(Op{Kind: kind, Name: name}); err != nil {
		return nil, err
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return &injectFile{f, name, i.before}, nil
}

func (i *injectFS) Remove(name string) error {
	if err := i.before(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	return i.fs.Remove(name)
}

func (i *injectFS) RemoveAll(dir string) error {
	if err := i.before(Op{Kind: OpRemoveAll, Name: dir}); err != nil {
		return err
	}
	return i.fs.RemoveAll(dir)
}

func (i *injectFS) Rename(from, to string) error {
	if err := i.before(Op{Kind: OpRename, Name: from, To: to}); err != nil {
		return err
	}
	return i.fs.Rename(from, to)
}

func (i *injectFS) MkdirAll(dir string) error {
	if err := i.before(Op{Kind: OpMkdirAll, Name: dir}); err != nil {
		return err
	}
	return i.fs.MkdirAll(dir)
}

func (i *injectFS) List(dir string) ([]string, error) {
	if err := i.before(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return i.fs.List(dir)
}

func (i *injectFS) SyncDir(dir string) error {
	if err := i.before(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return err
	}
	return i.fs.SyncDir(dir)
}

func (i *injectFS) Lock(name string) (io.Closer, error) {
	if err := i.before(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	return i.fs.Lock(name)
}

func (i *injectFS) Free(dir string) (int64, error) {
	if err := i.before(Op{Kind: OpFree, Name: dir}); err != nil {
		return 0, err
	}
	return i.fs.Free(dir)
}

type injectFile struct {
	f      File
	name   string
	before func(Op) error
}

func (i *injectFile) ReadAt(p []byte, off int64) (int, error) {
	if err := i.before(Op{Kind: OpRead, Name: i.name, Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	return i.f.ReadAt(p, off)
}

func (i *injectFile) WriteAt(p []byte, off int64) (int, error) {
	if err := i.before(Op{Kind: OpWrite, Name: i.name, Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	return i.f.WriteAt(p, off)
}

func (i *injectFile) Sync() error {
	if err := i.before(Op{Kind: OpSync, Name: i.name}); err != nil {
		return err
	}
	return i.f.Sync()
}

func (i *injectFile) Truncate(size int64) error {
	if err := i.before(Op{Kind: OpTruncate, Name: i.name, Off: size}); err != nil {
		return err
	}
	return i.f.Truncate(size)
}

func (i *injectFile) Size() (int64, error) {
	if err := i.before(Op{Kind: OpSize, Name: i.name}); err != nil {
		return 0, err
	}
	return i.f.Size()
}

func (i *injectFile) Close() error {
	if err := i.before(Op{Kind: OpClose, Name: i.name}); err != nil {
		return err
	}
	return i.f.Close()
}
