package client

import "time"

// Phase is what the connection is doing.
type Phase string

// The phases of a connection.
const (
	Idle         Phase = "idle"         // there is none, and nothing needs one
	Connecting   Phase = "connecting"   // for the first time since it was idle or closed
	Open         Phase = "open"         // in use; over HTTP: the server has answered
	Reconnecting Phase = "reconnecting" // it was lost or could not be made; something is pending
	Closed       Phase = "closed"       // given up, for the reason in Err; the next call tries again, unless Close was called
)

// State is how the connection stands.
type State struct {
	Phase   Phase
	Attempt int       // Reconnecting: number of the next connect, from 1
	Next    time.Time // Reconnecting: when it comes, or came
	Err     error     // Reconnecting and Closed: why
}

// maxStates is how many states wait for a slow function of WithStateFunc.
const maxStates = 16

// setState is called with the mutex held.
func (c *Client) setState(s State) {
	c.state = s
	if c.cfg.stateFunc == nil {
		return
	}
	if len(c.states) == maxStates {
		c.states = c.states[1:]
	}
	c.states = append(c.states, s)
	if len(c.states) == 1 && !c.telling {
		c.telling = true
		c.wg.Go(c.tell)
	}
}

// tell calls the application's function while there are states that it has not seen.
func (c *Client) tell() {
	for {
		c.mu.Lock()
		if len(c.states) == 0 {
			c.telling = false
			c.mu.Unlock()
			return
		}
		s := c.states[0]
		c.states = c.states[1:]
		c.mu.Unlock()
		c.cfg.stateFunc(s)
	}
}
