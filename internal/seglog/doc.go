// Package seglog is a segmented, append-only log of messages: what a topic is made of.
//
// # What it promises
//
// Append puts records into memory; Commit returns when they are as safe as the
// Committer's policy makes them: written to the file, and with SyncAlways synced.
// Records become visible to readers when they are committed, in the order of their
// sequence numbers, and never change. What one Append has appended becomes visible as a
// whole, or when its Commit fails, not at all.
//
// Sequence numbers only grow, may have holes, and are not used twice: after a crash they
// go on above any that a reader could have seen or a Commit returned for, whether or not
// its record survived.
//
// # What it assumes of the disk
//
//   - A write may be torn at any byte, and writes that were not synced may reach the
//     disk in any order or not at all.
//   - A sync that returned nil is true. After a sync that failed, nothing is known of
//     what was written since the last good one: the segment is closed where it was last
//     known to be good, and a new one is begun.
//   - Bytes may rot. A record is checked when it is read from a file; one that fails is
//     reported and skipped, and its neighbours are read all the same.
//
// # Files
//
// A log is a directory of segments, each named by its first possible sequence number in
// hexadecimal: 0000000000000001.seg. A segment is
//
//	┌────────┬────────┬────────┬────────┬───┬────────┬────────┬─────────┐
//	│ header │ header │ record │ record │ … │ record │ footer │ trailer │
//	└────────┴────────┴────────┴────────┴───┴────────┴────────┴─────────┘
//
// The header stands there twice, because without its salt no record can be checked and
// one flipped bit would cost the whole segment. Footer and trailer are written when the
// segment is full or the log is closed; so only the segment that was open at a crash has
// to be scanned when the log is opened again. A log that is opened never appends to a
// file that it found. Compact puts a file with fewer records in the place of a full
// segment's. The bytes are drawn in format.go and footer.go.
//
// A round of many logs is made safe by one sync of a redo log beside them, see Redo, instead
// of one for each file.
//
// With SyncAlways, the header is synced before any record is written, the records before
// their footer is, and all of that before the next segment's file is made. So a power loss
// leaves no file but the last unfinished, and damage anywhere else is the disk's doing.
//
// # What it does not do
//
// It knows nothing of channels or acks: which segments are consumed is for its owner to
// say. It does not keep a directory from being used by two processes, nor bring back what
// rotted, nor wait for space on a full disk: Commit says so, and the next may succeed.
//
// A log with no file system keeps its segments in memory alone, until they are removed.
package seglog
