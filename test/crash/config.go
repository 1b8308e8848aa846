package crash

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// Config says what to run.
type Config struct {
	Shape    fleet.Shape
	Time     time.Duration // of chaos, and up to twice that while a rare state has not come about; recovery and checks come after it
	Seed     uint64
	Dir      string    // for binaries, logs and data; what is in it stays only if something is wrong
	InFlight int       // requests at once; default: 100, on AWS 50
	Rate     float64   // requests per second at most; default: 25, on AWS 8, since emulators are slow
	Out      io.Writer // for how it goes

	// Tame has a run pass in which not all rare states came about, as in a short one.
	Tame bool
}

const (
	lease     = 3 * time.Second
	drain     = 3 * time.Second
	grace     = 10 * time.Second // the library's default
	retention = 30 * time.Minute // longer than anybody looks at a request here
	slack     = 2 * time.Second
	attempts  = 5

	// quiet is how long a log in DynamoDB that has been quiet is not looked at.
	quiet = time.Second

	// recovery bounds how long all requests take to end once nothing disturbs them.
	recovery = 2 * time.Minute
)

// applyDefaults fills in what is not set, and refuses what makes no sense.
func (c *Config) applyDefaults() error {
	inFlight, rate := 100, fullRate
	if c.Shape == fleet.Amazon {
		inFlight, rate = 50, 8
	}
	if c.InFlight == 0 {
		c.InFlight = inFlight
	}
	if c.Rate == 0 {
		c.Rate = rate
	}
	switch {
	case c.Time <= 0:
		return fmt.Errorf("crash: a run of %v: want more than 0", c.Time)
	case c.Dir == "" || c.Out == nil:
		return errors.New("crash: Dir and Out are needed")
	case c.InFlight < 1 || c.Rate <= 0:
		return fmt.Errorf("crash: %d requests at once and %v per second: want more", c.InFlight, c.Rate)
	}
	return nil
}

func (c *Config) spec() fleet.Spec {
	s := fleet.Spec{
		Shape: c.Shape, Dir: c.Dir, Lease: lease, Retention: retention, Drain: drain, Attempts: attempts, Concurrency: 48,
	}
	switch c.Shape {
	case fleet.Cluster:
		s.Gateways, s.Workers, s.Nodes = 2, 3, 3
	case fleet.Amazon:
		s.Gateways, s.Workers = 2, 3
	}
	return s
}

func (c *Config) rules() history.Rules {
	r := history.Rules{Attempts: attempts, Lease: lease, Grace: grace, Slack: slack, Durable: true, VolatileProgress: c.Shape == fleet.Embedded}
	if c.Shape == fleet.Amazon {
		r.Notice, r.Stray = quiet, lease
	}
	return r
}

// fullRate is the rate at which there are as many cuts as minCuts says.
const fullRate = 25.0

// minCuts is how many connections must have been cut: 10,000 in three minutes, and no more than
// 100,000; fewer in proportion where there are fewer requests.
func (c *Config) minCuts() int64 {
	return int64(min(10_000*c.Time.Minutes()/3, 100_000) * min(c.Rate/fullRate, 1))
}
