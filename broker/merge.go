package broker

import (
	"cmp"
	"errors"
	"slices"

	"github.com/millrace/millrace/internal/ledger"
)

// merge makes one run of the shortest ones, when there are too many. The turn is held.
func (ch *Channel) merge() error {
	runs := toMerge(ch.runs())
	if runs == nil {
		return nil
	}
	open := openRuns{ch: ch}
	defer open.close()
	w, id, err := ch.newRun()
	if err != nil {
		return err
	}
	lost, err := mergeInto(w, &open, runs)
	if err != nil {
		w.abandon()
		return err
	}
	blocks, due, err := w.finish()
	if err != nil {
		return err
	}
	ids := make([]uint64, len(runs))
	for i, r := range runs {
		ids[i] = r.ID
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.ledger.Merged(ledger.Run{ID: id, Left: blocks, Due: due}, ids...)
	ch.touch()
	if lost {
		ch.later.strays = true
		ch.topic.broker.house.tell(ch.topic)
	}
	return nil
}

// toMerge returns the runs that are to become one, or nil.
func toMerge(runs []ledger.Run) []ledger.Run {
	if len(runs) <= mergeFrom {
		return nil
	}
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b ledger.Run) int { return cmp.Compare(a.Left, b.Left) })
	runs = runs[:mergeRuns]
	blocks := uint64(0)
	for _, r := range runs {
		blocks += r.Left
	}
	if blocks > mergeBlocks {
		return nil
	}
	return runs
}

// mergeInto writes what the runs still mean. lost says that a block was damaged.
func mergeInto(w *laterWriter, open *openRuns, runs []ledger.Run) (lost bool, err error) {
	sources := make([]source, len(runs))
	for i, r := range runs {
		sources[i].run = r
	}
	for {
		var first *source
		for i := range sources {
			s := &sources[i]
			bad, err := s.fill(open)
			if err != nil {
				return lost, err
			}
			lost = lost || bad
			if len(s.rest) > 0 && (first == nil || s.rest[0].Compare(first.rest[0]) < 0) {
				first = s
			}
		}
		if first == nil {
			return lost, nil
		}
		if err := w.add(first.rest[0]); err != nil {
			return lost, err
		}
		first.rest = first.rest[1:]
	}
}

// source is a run that is being merged.
type source struct {
	run  ledger.Run
	rest []ledger.Deferral // of the block before run.At
}

// fill makes rest hold something, unless the run has no more.
func (s *source) fill(open *openRuns) (lost bool, err error) {
	for len(s.rest) == 0 && s.run.Left > 0 {
		s.rest, err = open.block(s.run.ID, s.run.At)
		if errors.Is(err, errDamaged) {
			ch := open.ch
			ch.topic.damaged(laterName(ch.name, s.run.ID))(laterHeaders+int64(s.run.At)*laterBlock, laterBlock) //nolint:gosec // far below 2^63
			lost, err = true, nil
		}
		if err != nil {
			return lost, err
		}
		s.run.At, s.run.Left = s.run.At+1, s.run.Left-1
	}
	return lost, nil
}
