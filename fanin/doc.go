// Package fanin merges any number of sources into one stream.
//
// A source is a function that emits values until it has no more or is told to
// stop. Sources are added to a [Merger] and removed from it while it runs; one
// reader takes the values, one at a time or as many as are there.
// [Merger.Serve] looks after the sources. [Merge] and [MergeSeq] are for a fixed
// set of channels and iterators.
//
// # What is promised
//
//   - Values of one source, emitted by one goroutine, are read in the order in
//     which they were emitted. Between sources there is no order.
//   - Memory is bounded: a source that is ahead of the reader waits in its
//     emission, and leaves it when its context ends.
//   - An emission that returned nil is accounted for: its value is read, or it
//     is handed to [Config.Undelivered]. One that returned an error left nothing
//     behind. Never both, never neither.
//   - When the merger is told to stop, its sources are; what they had emitted,
//     and what they still emit on their way out, is read until the grace is over.
//   - The stream ends exactly once, for every reader. No goroutine is left
//     behind when the reader walks away: waiting emissions fail, and Serve
//     returns when the sources have.
//   - A source that panics, or calls runtime.Goexit, ends with an error; the
//     others go on.
//
// # What it does not do
//
// It restarts nothing: a supervised worker (package supervise) is a fine source.
// A goroutine cannot be killed, so Serve waits for a source that ignores its
// context; the stream ends in time all the same.
package fanin
