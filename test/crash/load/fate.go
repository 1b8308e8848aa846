package load

import (
	"math"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

const (
	headBytes = 300             // about the size of what comes before the first message
	patience  = 3 * time.Second // with a server that says nothing
	callLimit = 6 * time.Second // of a call, more than a server may take to find its store down
	silence   = 60              // one connection of so many goes silent instead of being cut
)

// viewFate is what becomes of a connection that follows a number of requests.
func (c *client) viewFate(requests int) wire.Fate {
	var f wire.Fate
	if c.calm.Load() {
		return f
	}
	f.After = 200*time.Millisecond + c.ms(4000)
	switch n := c.roll(100); {
	case n < 8:
	case n < 16:
		f.ToServer = 1 + c.roll(500)
	case n < 30:
		f.ToClient = 1 + c.roll(headBytes)
	default:
		f.ToClient = headBytes + int(-math.Log(1-float64(c.roll(1000))/1000)*900*float64(requests))
	}
	f.Silent = c.roll(silence) == 0 && f.ToServer+f.ToClient > 0
	return f
}

// callFate is what becomes of a connection for one call.
func (c *client) callFate() wire.Fate {
	var f wire.Fate
	if c.calm.Load() {
		return f
	}
	switch n := c.roll(100); {
	case n < 15:
		f.ToServer = 1 + c.roll(700)
	case n < 45:
		f.ToClient = 1 + c.roll(2*headBytes)
	}
	return f
}
