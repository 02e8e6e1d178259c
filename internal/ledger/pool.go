package ledger

// A pool keeps some of what is not used at the moment, so that a channel in its steady
// state allocates nothing. It keeps no more than a busy channel turns over, because
// there may be thousands of idle ones.
type pool[T any] struct{ spare []*T }

const maxSpare = 128

func (p *pool[T]) get() *T {
	n := len(p.spare)
	if n == 0 {
		return new(T)
	}
	t := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return t
}

func (p *pool[T]) put(t *T) {
	if len(p.spare) < maxSpare {
		p.spare = append(p.spare, t)
	}
}
