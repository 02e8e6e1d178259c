package ledger

import (
	"slices"
	"testing"
)

// The entry in which the cursor came to what was excluded is damaged, those around it are
// not: what was excluded stays away.
func TestWhatWasExcludedStaysAwayWhateverEntryIsLost(t *testing.T) {
	l := New(1)
	l.Exclude(5, 8)
	journal := [][]byte{l.AppendJournal(nil)}
	for _, to := range []uint64{4, 9, 12} {
		for seq := l.Cursor(); seq < to; seq++ {
			if l.Wanted(seq) {
				l.Deliver(seq, 100, 1)
			}
		}
		journal = append(journal, l.AppendJournal(nil))
	}
	for lost := 1; lost < len(journal); lost++ {
		again := restarted(t, 100, slices.Delete(slices.Clone(journal), lost, lost+1)...)
		for seq := range again.Live(0, 100) {
			if seq >= 5 && seq < 8 {
				t.Errorf("without entry %d message %d is there again", lost, seq)
			}
		}
	}
}
