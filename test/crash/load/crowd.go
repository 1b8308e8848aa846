package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// maxSeats is how many requests are followed on one connection.
const maxSeats = 12

// crowd is a viewer of all requests of one identity that ask for it, over one connection at a
// time, as an application with many requests is.
type crowd struct {
	client
	come  chan *seat
	seats []*seat
}

// seat is the place of one request in a crowd.
type seat struct {
	watch
	view    *history.View
	segment *history.Segment
	left    chan struct{} // closed when the view is complete
}

// Crowds runs the viewers of many requests until ctx ends. It must be called before Live, and
// returns what waits for them.
func (d *Driver) Crowds(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	d.crowds = make(map[string]chan *seat)
	for i := range identities {
		tenant, user := identity(i)
		c := &crowd{come: make(chan *seat)}
		c.client = client{Driver: d, token: tenant + ":" + user, rng: rand.New(rand.NewPCG(d.Seed, 1<<40+uint64(i)))}
		d.crowds[c.token] = c.come
		wg.Go(func() { c.run(ctx) })
	}
	return wg.Wait
}

// join has the crowd follow the request to its end.
func (r *request) join(ctx context.Context) {
	s := &seat{view: &history.View{Viewer: "crowd"}, left: make(chan struct{})}
	s.watch = watch{request: r, cursor: wire.Cursor{ID: r.plan.ID}}
	select {
	case r.crowds[r.token] <- s:
	case <-ctx.Done():
		return
	}
	<-s.left
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.plan.Views = append(r.plan.Views, s.view)
}

func (c *crowd) run(ctx context.Context) {
	defer func() {
		for _, s := range c.seats {
			close(s.left)
		}
	}()
	for c.gather(ctx) {
		g := c.gateway()
		if f, err := c.open(ctx, g); err == nil {
			c.follow(ctx, f)
		} else {
			c.report("view", err)
			pause(ctx, c.ms(200))
		}
		c.part()
		pause(ctx, c.ms(150))
	}
}

// gather waits until there is somebody to follow, and takes in those who wait. It returns false
// when ctx has ended.
func (c *crowd) gather(ctx context.Context) bool {
	for ctx.Err() == nil && len(c.seats) < maxSeats {
		if len(c.seats) == 0 {
			select {
			case s := <-c.come:
				c.seats = append(c.seats, s)
			case <-ctx.Done():
			}
			continue
		}
		select {
		case s := <-c.come:
			c.seats = append(c.seats, s)
		default:
			return true
		}
	}
	return ctx.Err() == nil
}

// open connects, with the cursors of all.
func (c *crowd) open(ctx context.Context, g Gateway) (*following, error) {
	var cursors []wire.Cursor
	transport := []string{"websocket of many", "sse of many"}[c.roll(2)]
	for _, s := range c.seats {
		s.segment = segment(g, transport, s.cursor)
		cursors = append(cursors, s.cursor)
	}
	server := c.server(g, c.viewFate(len(cursors)))
	f := &following{}
	if transport == "sse of many" {
		stream, a, err := wire.FollowMany(ctx, server, cursors, patience)
		if err == nil && stream == nil {
			err = fmt.Errorf("status %d: %s", a.Status, a.Body)
		}
		f.stream = stream
		return f, err
	}
	dialing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	socket, err := wire.DialSocket(dialing, server, wire.Greeting{Batch: true, Resume: cursors})
	if err == nil {
		f.begin(ctx, socket)
	}
	return f, err
}

// follow sees a connection through, unless all that it shows is over.
func (c *crowd) follow(ctx context.Context, f *following) {
	defer f.close()
	for {
		messages, err := f.next(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.report("view", err)
			}
			return
		}
		open := 0
		for _, s := range c.seats {
			for i := range messages {
				if messages[i].RequestID == s.plan.ID {
					s.segment.Messages = append(s.segment.Messages, messages[i])
					s.take(messages[i : i+1])
				}
			}
			if !s.done {
				open++
			}
		}
		if open == 0 || !f.leave.IsZero() && time.Now().After(f.leave) {
			return
		}
	}
}

// part notes what was shown, and lets those go who have seen the end.
func (c *crowd) part() {
	var stay []*seat
	for _, s := range c.seats {
		s.segment.To = time.Now()
		s.add(s.view, s.segment)
		if s.done {
			s.noteEnd()
			close(s.left)
		} else {
			stay = append(stay, s)
		}
	}
	c.seats = stay
}
