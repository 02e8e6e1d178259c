package broker

// SetQuiet says what happens when a lease of the consumer's ends because its time has run
// out: a quiet consumer is given nothing more until Speak is called, because what does not
// answer may be dead. Others, as all are at first, get the next message.
func (c *Consumer) SetQuiet(quiet bool) {
	c.channel.mu.Lock()
	c.quiet = quiet
	c.channel.mu.Unlock()
	if !quiet {
		c.Speak()
	}
}

// Speak says that a quiet consumer is alive. It costs next to nothing when that was known.
func (c *Consumer) Speak() {
	if c.silent.Load() && c.silent.CompareAndSwap(true, false) {
		c.wakeUp()
	}
}
