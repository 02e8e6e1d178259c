package broker

import "github.com/millrace/millrace"

// TryReceive is Receive that waits for nothing: it returns 0 when there is nothing for the
// consumer now, or when another Receive runs.
func (c *Consumer) TryReceive(buf []millrace.Delivery) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	select {
	case c.receiving <- struct{}{}:
	default:
		return 0, nil
	}
	defer func() { <-c.receiving }()
	n, err := c.take(buf)
	if n == 0 {
		c.giveUp() // nobody is to wake it up, for it does not wait
	}
	return n, err
}
