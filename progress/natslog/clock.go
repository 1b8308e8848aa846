package natslog

import (
	"sync"
	"time"
)

// clock tells the time of the server, which stamps messages, whatever this machine's clock
// says. It is never ahead of the server's, and behind by at most the time that an answer took.
type clock struct {
	mu   sync.Mutex
	then time.Time // by the server
	at   time.Time // when that was heard, monotonic
}

// maxDrift is by how much two clocks may drift apart between two answers.
const maxDrift = 20 * time.Millisecond

// heard takes note of what time an answer gives that was asked for at a time, and has just
// come.
func (c *clock) heard(server, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.at.IsZero() {
		// Of answers that agree the one that took least is the best. If they don't, the server's
		// clock was changed.
		if ahead := c.then.Add(now.Sub(c.at)).Sub(server); ahead > 0 && ahead < now.Sub(asked)+maxDrift {
			return
		}
	}
	c.then, c.at = server, now
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.then.Add(time.Since(c.at))
}
