package client

import "context"

// iteration reads a request's events for one loop.
type iteration struct {
	r     *Request
	flow  *flow // the handle's, or, to read again what has ended, one of its own
	own   bool
	at    reader
	epoch string // of the newest event
}

func (r *Request) iterate() *iteration {
	it := &iteration{r: r, flow: r.flow}
	it.at.pos = r.start
	it.at.seq = r.after
	it.at.missed = r.missed
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.flow.enter(&it.at)
	r.c.review(r.flow)
	return it
}

func (it *iteration) stop() {
	c := it.r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	it.flow.leave(&it.at)
	if it.own {
		c.leave(it.flow)
	} else {
		c.review(it.flow)
	}
}

// next waits for what comes next. It returns nil after the end.
func (it *iteration) next(ctx context.Context) (*Event, error) {
	c := it.r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		f := it.flow
		if it.r.detached {
			return nil, ErrClosed
		}
		if e := f.take(&it.at); e != nil {
			if e.Kind != Progressed {
				it.epoch = e.Epoch
			}
			c.review(f)
			return e, nil
		}
		switch {
		case f.read(&it.at):
			return nil, nil
		case f.err != nil:
			return nil, f.err
		case ctx.Err() != nil:
			if it.r.settings.cancelOnEnd {
				c.cancelUnheard(f.id)
			}
			return nil, c.waitError(f.id, ctx.Err())
		case f.journal.end != nil:
			if err := it.reopen(ctx); err != nil {
				return nil, err
			}
			continue
		}
		c.review(f)
		changed := f.changed.wait()
		c.unlocked(func() {
			select {
			case <-changed:
			case <-f.done:
			case <-it.r.gone:
			case <-ctx.Done():
			}
		})
	}
}

// reopen follows a log that has ended once more, since the iteration lags and what comes next
// is not held.
func (it *iteration) reopen(ctx context.Context) error {
	c := it.r.c
	old := it.flow
	at := cursor{epoch: it.epoch, after: it.at.seq}
	if at.epoch == "" {
		at.epoch = old.epoch
	}
	f, fresh, err := c.enter(ctx, old.id, at, c.cfg.limits.Buffer)
	if err != nil {
		return err
	}
	old.leave(&it.at)
	if it.own {
		c.leave(old)
	}
	it.flow = f
	it.own = true
	it.at.seq = at.after
	if fresh {
		f.known = true
		c.ask(f)
	} else if f.epoch == "" {
		c.unlocked(func() {
			select {
			case <-f.ready:
			case <-it.r.gone:
			case <-ctx.Done():
			}
		})
	}
	if f.epoch == "" || f.epoch == at.epoch {
		it.at.pos = f.place(at.after)
	} else {
		it.at.pos = f.place(0)
		it.at.missed = gap(f.epoch, "recreated", 1, f.attempt)
	}
	it.at.reports = f.reports
	f.enter(&it.at)
	c.review(f)
	return nil
}
