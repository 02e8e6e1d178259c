// Package differ holds only tests: they send the same bytes to the real nsqd and to
// Millrace and compare what comes back, frame by frame and byte by byte.
//
// A script is what some clients send and how many frames they wait for; what the frames
// must be is not written down anywhere, because nsqd says it. Before two transcripts are
// compared, what cannot be equal is given a name: message ids in the order in which they
// come, ports, times, sizes of memory. Where Millrace is meant to differ, the script says
// why and what Millrace answers instead; it fails when the two no longer differ.
package differ
