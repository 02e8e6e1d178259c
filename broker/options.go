package broker

import (
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// How long after a publish its messages are synced to the disk.
const (
	// SyncAlways syncs before Publish returns, once for all that publish at the time.
	SyncAlways = seglog.SyncAlways
	// SyncNever leaves it to the operating system.
	SyncNever = seglog.SyncNever
)

// Options say where and how a broker keeps its messages. The zero value is a broker in
// memory.
type Options struct {
	// Dir is the data directory, created if need be; one process at a time can use it.
	// "" keeps everything in memory.
	Dir string
	// Sync is SyncAlways, SyncNever, or how long a message may be written but not yet
	// synced.
	Sync time.Duration
	// MaxMessage is the most bytes that the headers and body of one message may have
	// together. 0 means DefaultMaxMessage.
	MaxMessage int
	// MaxMemory is the most bytes of messages that a broker in memory holds, and one
	// with a Dir in its ephemeral topics; beyond it Publish returns ErrNoSpace. 0 means
	// DefaultMaxMemory.
	MaxMemory int64
	// MaxAttempts is how often a message is delivered by a channel that does not ack it;
	// after that it becomes a dead letter, see DeadTopic. It counts what a consumer was
	// given and had no time to look at, too. Dead letters themselves, and tasks whose
	// answer somebody waits for, are delivered until they are acked: see package worker. 0
	// means that all messages are.
	MaxAttempts int
	// DiskLowWater is how many bytes must stay free on the disk of Dir: while there are
	// fewer, Publish to a topic in files returns ErrNoSpace, and all else goes on. 0 means
	// that messages are accepted until the disk is full.
	DiskLowWater int64
	// Retain is how long the messages of topics in files stay at least, whoever has
	// consumed them, so that a channel can be replayed: see Channel.Replay. It counts from
	// the last message of a segment (64 MiB). 0 means that they go when no channel needs
	// them any more, also those that a broker which had the directory before has retained.
	Retain time.Duration
	// Logger is told what nobody else can be told, such as damage that was found. nil
	// means slog.Default().
	Logger *slog.Logger

	fs          vfs.FS // replaces the real file system in tests
	segmentSize int64  // of the logs, so that tests need not fill 64 MiB; 0 means seglog's
	nearMost    int    // how many deferred messages a channel has in memory; 0 means nearMost
}

// The defaults of Options.
const (
	DefaultMaxMessage = 64 << 20
	DefaultMaxMemory  = 1 << 30
	// tailBudget is the memory for the recent messages of all topics that are in files.
	tailBudget = 16 << 20
)

func (o Options) withDefaults() Options {
	if o.MaxMessage <= 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	o.MaxMessage = min(o.MaxMessage, seglog.MaxEntry)
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMaxMemory
	}
	if o.nearMost <= 0 {
		o.nearMost = nearMost
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Dir == "" {
		o.fs = nil
	} else if o.fs == nil {
		o.fs = vfs.OS()
	}
	return o
}
