package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// reconnection is what happened when all connections were cut.
type reconnection struct {
	took   time.Duration // from the cut until the last client has all it missed
	away   time.Duration // of this, until the server let anyone in
	growth float64       // the most that was resident then, divided by what was before, new events left out
}

// reconnect cuts n connections at once, each of which follows a running request of its own.
// The requests go on while nobody is there, and each client comes back as the protocol says,
// with full jitter, and resumes.
func reconnect(n int) (r reconnection, err error) {
	server, err := spawn(roleCrowd)
	if err != nil {
		return r, err
	}
	defer server.close()
	clients := make([]follower, n)
	err = limited(n, func(i int) error {
		clients[i].id = fmt.Sprint("held-", i)
		return clients[i].start(server)
	})
	defer func() {
		for i := range clients {
			clients[i].close()
		}
	}()
	if err != nil {
		return r, err
	}
	logged, err := server.logged()
	if err != nil {
		return r, err
	}
	before, err := server.mark()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	cut := make(chan error, 1)
	go func() {
		err := server.cut()
		r.away = time.Since(begin)
		cut <- err
	}()
	err = each(n, func(i int) error { return clients[i].recover(server) })
	took := time.Since(begin)
	if err := first(err, <-cut); err != nil {
		return r, err
	}
	peak, err := server.peak()
	if err != nil {
		return r, err
	}
	loggedThen, err := server.logged()
	if err != nil {
		return r, err
	}
	r.took = took
	r.growth = float64(peak-(loggedThen-logged)) / float64(before)
	if err := server.release(); err != nil {
		return r, err
	}
	return r, each(n, func(i int) error { return clients[i].finish() })
}

// follower is a client with one request, which it follows over several connections.
type follower struct {
	id, epoch string
	peer      *peer
	viewing   viewing
}

func (f *follower) start(server *child) (err error) {
	if f.peer, err = dial(server.addr, server.hello()); err != nil {
		return err
	}
	if err := f.peer.send(request(f.id, "hold", "null")); err != nil {
		return err
	}
	return f.until(1)
}

// until reads until n outputs were seen.
func (f *follower) until(n int) error {
	for f.viewing.outputs < n {
		message, err := f.peer.read()
		if err != nil {
			return err
		}
		if err := f.viewing.see(message); err != nil {
			return wrong{err}
		}
		if f.epoch == "" {
			f.epoch = string(field(message, `"epoch":"`))
		}
	}
	return nil
}

// wrong is an error that no new connection can mend.
type wrong struct{ error }

// recover waits for the cut, connects again until that succeeds, and reads all that was missed.
func (f *follower) recover(server *child) error {
	err := f.until(1 + missed)
	if err == nil {
		return fmt.Errorf("request %s was not cut off", f.id)
	}
	for try := 0; err != nil; try++ {
		if _, is := err.(wrong); is {
			return err
		}
		if try == 20 {
			return fmt.Errorf("request %s: no way back: %w", f.id, err)
		}
		f.peer.close()
		time.Sleep(rand.N(min(500*time.Millisecond<<min(try, 6), 20*time.Second)))
		p, failed := dial(server.addr, helloResuming(f.id, f.epoch, f.viewing.seq))
		if err = failed; err == nil {
			f.peer = p
			err = f.until(1 + missed)
		}
	}
	return nil
}

func (f *follower) finish() error {
	if err := f.peer.follow(&f.viewing); err != nil {
		return err
	}
	if f.viewing.outputs != 1+missed {
		return fmt.Errorf("request %s ended after %d outputs", f.id, f.viewing.outputs)
	}
	return nil
}

func (f *follower) close() {
	if f.peer != nil {
		f.peer.close()
	}
}
