package seglog

import "sort"

// First returns the sequence number of the oldest visible record, End if there is none.
// It may be of one that is damaged.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.committed > headersSize && len(s.marks) > 0 {
			return s.marks[0].seq
		}
	}
	return l.visible
}

// SeqAt returns the sequence number of the first visible record that was appended at the
// time, in Unix nanoseconds, or later; End if there is none. Where the machine's clock was
// set back between two runs it is the first of the earlier one's. It reads a few stretches
// of one segment. Returns what the file system returns.
func (l *Log) SeqAt(time int64) (uint64, error) {
	marks, end := l.marksAround(time)
	if len(marks) == 0 {
		return end, nil
	}
	var failed error
	// The first mark whose record is as late as that: what is looked for stands there, or
	// behind the mark before.
	i := sort.Search(len(marks), func(i int) bool {
		r, err := l.readOne(marks[i])
		if err != nil {
			failed = err
		}
		return r.Seq == 0 || r.Time >= time
	})
	if failed != nil {
		return 0, failed
	}
	reader := l.NewReader(marks[max(i-1, 0)])
	defer reader.Close()
	for {
		var some [64]Record
		n, err := reader.Read(some[:])
		for _, r := range some[:n] {
			if r.Time >= time {
				return r.Seq, nil
			}
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return l.End(), nil
		}
	}
}

// marksAround returns the marks of the first segment that has something as late as that,
// or none, and the end of the log.
func (l *Log) marksAround(time int64) (seqs []uint64, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.committed <= headersSize || s.lastTime < time {
			continue
		}
		for _, m := range s.marks { // behind those that are not visible yet nothing is found
			seqs = append(seqs, m.seq)
		}
		break
	}
	return seqs, l.visible
}

// readOne returns the first record at or behind seq; the zero Record if there is none.
func (l *Log) readOne(seq uint64) (Record, error) {
	reader := l.NewReader(seq) // one that goes on would read ahead
	defer reader.Close()
	var one [1]Record
	_, err := reader.Read(one[:])
	return one[0], err
}
