package broker

import (
	"sync"

	"github.com/millrace/millrace/internal/seglog"
)

// recordPool has room for the records that a consumer reads at a time. They are up to some
// thousand, for a moment: what each of ten thousand idle consumers once needed would be
// gigabytes.
type recordPool struct{ spare sync.Pool }

// take returns room for at least n records.
func (p *recordPool) take(n int) *[]seglog.Record {
	if room, ok := p.spare.Get().(*[]seglog.Record); ok && cap(*room) >= n {
		return room
	}
	room := make([]seglog.Record, n)
	return &room
}

// giveBack takes back what take has returned, which may be nil, after so many records were
// read into it: they hold on to memory of the log. So may one behind them, that was passed.
func (p *recordPool) giveBack(room *[]seglog.Record, used int) {
	if room != nil {
		clear((*room)[:min(used+1, len(*room))])
		p.spare.Put(room)
	}
}
