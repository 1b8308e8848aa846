package worker

import (
	"context"
	"sync/atomic"

	"github.com/pay-theory/streamer/v2/progress"
)

// CutLog is a log that has lost the events of a request before Oldest.
type CutLog struct {
	progress.Log
	ID     string
	Oldest *atomic.Uint64 // 0: nothing is lost
}

// Read implements [progress.Log].
func (l CutLog) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	oldest := l.Oldest.Load()
	if key.ID != l.ID || oldest == 0 {
		return l.Log.Read(ctx, key, after, limit)
	}
	page, err := l.Log.Read(ctx, key, max(after, oldest-1), limit)
	page.Oldest = oldest
	return page, err
}
