package streamer

import (
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// unknowns remembers since when tickets have come here whose action has no handler here. How old
// a request is does not tell that: it may have waited for a worker before, and the time of its
// acceptance is by the clock of another machine.
type unknowns struct {
	mu    sync.Mutex
	since map[progress.Key]time.Time
}

// maxUnknown bounds the requests that are remembered. One that has no place is handed back until
// it has.
const maxUnknown = 10_000

// wait returns how long a request has waited for a handler since it came here first.
func (u *unknowns) wait(key progress.Key) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if since, ok := u.since[key]; ok {
		return now.Sub(since)
	}
	if len(u.since) >= maxUnknown {
		for k, since := range u.since { // those that have found a handler elsewhere
			if now.Sub(since) > 2*unknownLimit {
				delete(u.since, k)
			}
		}
	}
	if u.since == nil {
		u.since = make(map[progress.Key]time.Time)
	}
	if len(u.since) < maxUnknown {
		u.since[key] = now
	}
	return 0
}

// forget gives a request up.
func (u *unknowns) forget(key progress.Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.since, key)
}
