package broker

import "encoding/binary"

// WithNear returns o with so many deferred messages of a channel in memory.
func (o Options) WithNear(n int) Options {
	o.nearMost = n
	return o
}

// Parked returns how many messages of the channel that wait are in memory.
func (ch *Channel) Parked() int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.ledger.Near() + ch.ledger.Counts().Ready
}

// MemoryHeld returns how many bytes of messages the broker counts as held in memory.
func (b *Broker) MemoryHeld() int64 { return b.memory.Load() }

// SealEntry makes the checksum of a journal's first entry right again.
func SealEntry(file []byte, path string) {
	h, _ := readHeaders(file, path, func(int64, int64) {})
	n := frameSize + int(binary.LittleEndian.Uint32(file[headersSize:]))
	putFrame(file[headersSize:headersSize+n], h.salt, headersSize)
}
