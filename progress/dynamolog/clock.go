package dynamolog

import (
	"sync"
	"time"
)

// clock tells the time of the store, which is what the Date header of its answers says,
// whatever this machine's clock says. A write has to say when it happens before the store
// answers, so that is estimated: never too early, and late by about a second.
type clock struct {
	mu    sync.Mutex
	date  time.Time // what the newest answer said, in whole seconds
	asked time.Time // when that was asked for, monotonic
	came  time.Time // when it came
}

// heard takes note of what an answer says that was asked for at a time, and has just come.
func (c *clock) heard(date, asked time.Time) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.Before(asked) {
		c.date, c.asked, c.came = date, asked, now
	}
}

// latest returns the latest time that it may be.
func (c *clock) latest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.date.Add(time.Second + time.Since(c.asked))
}

// earliest returns the earliest time that it may be, in whole seconds.
func (c *clock) earliest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.date.Add(time.Since(c.came)).Truncate(time.Second)
}

// expiry returns when a log is gone that ends now.
func (c *clock) expiry(retention time.Duration) time.Time {
	const longest = 100 * 365 * 24 * time.Hour // as good as for ever
	at := c.latest().Add(min(retention, longest))
	return at.Add(time.Second - 1).Truncate(time.Second)
}
