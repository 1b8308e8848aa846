package progress

import "context"

// Fresh is a Log whose Read may answer from memory, and so be behind what other processes have
// been told. Whoever attaches to a log is told by ReadFresh: a viewer that comes from another
// process has been shown what that knew.
type Fresh interface {
	Log

	// ReadFresh is Read, but not behind what a Read anywhere has returned, and neither is what
	// this Log reads of the same log later.
	ReadFresh(ctx context.Context, key Key, after uint64, limit int) (Page, error)
}
