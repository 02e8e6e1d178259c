// Package vfs is the few file operations that a log needs, behind an interface,
// so that a test can have a disk that loses power, fills up, or fails on demand.
//
// [OS] is the machine's file system. [Mem] is one in memory that remembers what
// has been synced: [Mem.Crash] answers what a power loss at this moment would
// leave, and [Mem.CrashKeeping] answers with something worse that a real disk is
// also allowed to leave. [Inject] puts a function in front of every call of any
// of them, to count the calls, record them or make them fail.
//
// # What a crash may take
//
// These are the assumptions that the packages above are built and tested on:
//
//   - What was written to a file is safe once a Sync of that file, started after
//     the write had returned, has returned without an error. Before that, any part
//     of it may be on the disk, or none: in any order, torn at any 512-byte sector,
//     with zeros where a later byte made the file longer.
//   - A sector is written whole or not at all, and a write leaves the sectors alone
//     that it does not touch.
//   - A name that was created, renamed or removed is so for good once its directory
//     was synced with SyncDir. Before that, any of these may be undone. A rename is
//     never half done: the file has the one name or the other.
//   - A Sync that failed says nothing about what is on the disk, and nor does the
//     next one that succeeds: the system may have dropped what it could not write.
//
// The package does not hide the differences between file systems beyond that, has
// no notion of a current position in a file, and does not rename between
// directories, because no log needs it and no two systems agree on what a crash
// makes of it.
package vfs
