package crash

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

// Config says what to run.
type Config struct {
	Shape    fleet.Shape
	Time     time.Duration // of chaos; recovery and checks come after it
	Seed     uint64
	Dir      string    // for binaries, logs and data; what is in it stays only if something is wrong
	InFlight int       // requests at once; default: 100
	Rate     float64   // requests per second at most; default: 25
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

	// recovery bounds how long all requests take to end once nothing disturbs them.
	recovery = 2 * time.Minute
)

// applyDefaults fills in what is not set, and refuses what makes no sense.
func (c *Config) applyDefaults() error {
	if c.InFlight == 0 {
		c.InFlight = 100
	}
	if c.Rate == 0 {
		c.Rate = 25
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
	if c.Shape == fleet.Cluster {
		s.Gateways, s.Workers, s.Nodes = 2, 3, 3
	}
	return s
}

// minCuts is how many connections must have been cut: 10,000 in three minutes, and no more than
// 100,000.
func (c *Config) minCuts() int64 {
	return min(int64(10_000*c.Time.Minutes()/3), 100_000)
}
