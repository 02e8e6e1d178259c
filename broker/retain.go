package broker

import "github.com/millrace/millrace/internal/seglog"

// With Options.Retain, segments that no channel needs any more stay until their last
// message is that old, as they are, so that Replay finds everything of that time. It is a
// promise like a publish: nothing makes the broker give them up sooner, a full disk
// neither. How much they take is in TopicStats.RetainedBytes. What is emptied stays, too.

// retains says whether the segment is to stay at this time whoever needs it, and until
// when.
func (t *Topic) retains(s seglog.SegmentInfo, at int64) (until int64, stays bool) {
	keep := t.broker.opts.Retain
	if keep <= 0 || t.dir == "" {
		return 0, false
	}
	until = after(s.LastTime, keep)
	return until, until > at
}

// keep notes that a segment which no channel needs stays, and lets the housekeeper come
// when that is over. The turn is held.
func (t *Topic) keep(s seglog.SegmentInfo, at, until int64) {
	t.keeps += s.Bytes
	t.comeAgain(at, until)
}

// comeAgain makes the housekeeper come at the time next, at the latest. The turn is held.
func (t *Topic) comeAgain(at, next int64) {
	if t.again.at <= at {
		t.again.at = 0 // it rings, or has rung
	}
	t.again.set(at, next)
}
