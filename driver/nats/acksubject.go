package nats

import (
	"strconv"
	"strings"
)

// ackPrefix starts the subjects to which deliveries are acknowledged.
const ackPrefix = "$JS.ACK."

// ackInfo is what such a subject says.
type ackInfo struct {
	delivered uint32 // how often
	seq       uint64 // in the stream
	published int64  // when, in nanoseconds since the Unix epoch
}

// parseAck reads the subject, which has one of two forms (NATS ADR-15):
//
//	$JS.ACK.stream.consumer.delivered.seq.consumerSeq.timestamp.pending
//	$JS.ACK.domain.account.stream.consumer.delivered.seq.consumerSeq.timestamp.pending[.random]
func parseAck(subject string) (ackInfo, bool) {
	if !strings.HasPrefix(subject, ackPrefix) {
		return ackInfo{}, false
	}
	var parts [12]string
	n := 0
	for part := range strings.SplitSeq(subject, ".") {
		if n == len(parts) {
			return ackInfo{}, false
		}
		parts[n] = part
		n++
	}
	at := 4
	if n >= 11 {
		at = 6
	} else if n != 9 {
		return ackInfo{}, false
	}
	delivered, err1 := strconv.ParseUint(parts[at], 10, 32)
	seq, err2 := strconv.ParseUint(parts[at+1], 10, 64)
	published, err3 := strconv.ParseInt(parts[at+3], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return ackInfo{}, false
	}
	return ackInfo{delivered: uint32(delivered), seq: seq, published: published}, true
}
