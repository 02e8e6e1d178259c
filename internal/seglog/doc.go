// Package seglog is a segmented, append-only log of messages: what a topic is made of.
//
// # What it promises
//
// Append puts records into memory; Commit returns when they are as safe as the
// Committer's policy makes them: written to the file, and with SyncAlways synced.
// Records become visible to readers when they are committed, in the order of their
// sequence numbers, and never change. Sequence numbers only grow, may have holes, and
// are not used twice: after a crash they go on above any that could have been given
// out, whether or not its record survived.
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
// to be scanned when the log is opened again. The bytes are drawn in format.go.
//
// A log with no file system keeps its segments in memory alone, until they are removed.
package seglog
