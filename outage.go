package streamer

import (
	"log/slog"
	"sync"
	"time"
)

// outage keeps a store that is down from filling the log: all viewers and submits find out.
type outage struct {
	mu     sync.Mutex
	next   time.Time // before it nothing more is said
	unsaid int
}

// warn says that the store is unavailable, about once a second at most.
func (o *outage) warn(log *slog.Logger, doing string, err error) {
	o.mu.Lock()
	now := time.Now()
	unsaid := o.unsaid
	say := !now.Before(o.next)
	if say {
		o.next, o.unsaid = now.Add(time.Second), 0
	} else {
		o.unsaid++
	}
	o.mu.Unlock()
	if say {
		log.Warn("store unavailable", "doing", doing, "error", err, "unsaid", unsaid)
	}
}
