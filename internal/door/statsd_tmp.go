//go:build !httpdoor

package door

type Statsd struct{}

func (s Statsd) withDefaults() Statsd { return s }
