package queue

import (
	"context"
	"time"
)

// Depth is how many tickets a queue holds, as of about now. A broker may not tell all of it.
type Depth struct {
	Ready   int           // tickets that could be delivered now
	Leased  int           // tickets that workers have
	Delayed int           // tickets that wait for the delay of a Retry to pass, where they can be told from leased ones
	Oldest  time.Duration // how long the ticket that has been ready longest has waited
}

// Measured is a Queue that can tell how it stands.
type Measured interface {
	Queue

	// Depth returns what the queue holds. Its errors are those of Queue.
	Depth(ctx context.Context) (Depth, error)
}
