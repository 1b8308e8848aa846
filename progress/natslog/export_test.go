package natslog

import (
	"time"

	"github.com/nats-io/nats.go"
)

var (
	CheckVersion = checkVersion
	Token        = token
	Untoken      = untoken
)

// Looks sets after which time a watch is looked at first, and then again. It must be called
// before Watch.
func (l *Log) Looks(first, quiet time.Duration) { l.feed.first, l.feed.quiet = first, quiet }

// Patient has events wait for their progress however slow the machine is. It must be called
// before Read.
func (l *Log) Patient() { l.reportPatience = patience }

// Lose drops the notifications that drop says so of, as core NATS may. It must be called
// before Watch.
func (l *Log) Lose(drop func(*nats.Msg) bool) {
	for i, kept := range l.feed.channels {
		lossy := make(chan *nats.Msg, channelRoom)
		l.feed.channels[i] = lossy
		l.ends.Go(func() {
			for {
				select {
				case m := <-lossy:
					if drop(m) {
						continue
					}
					select {
					case kept <- m:
					case <-l.ctx.Done():
						return
					}
				case <-l.ctx.Done():
					return
				}
			}
		})
	}
}

// Clock is a clock for tests.
type Clock struct{ clock }

func (c *Clock) Heard(server, asked time.Time) { c.heard(server, asked) }
func (c *Clock) Now() time.Time                { return c.now() }

// ReadAsReplicated has the log ask the leader, or any server, whatever the streams say.
func (l *Log) ReadAsReplicated(leader bool) {
	l.logs.replicated.Store(leader)
	l.reports.replicated.Store(leader)
}
