// Package door counts clients that are connected, and says when there are too many: in all,
// of one address, of one identity, and of those who have not said who they are.
package door

import (
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/limit"
)

var (
	errCrowded     = streamer.NewError(streamer.ErrCodeServiceUnavailable, "too many connections").WithRetry(5 * time.Second)
	errConnections = streamer.NewError(streamer.ErrCodeRateLimited, "too many connections of this client").WithRetry(5 * time.Second)
)

// Door counts by the limits of a handler. It is safe for concurrent use.
type Door struct {
	limits    *transport.Limits
	addresses limit.Gate[string]
	strangers limit.Gate[string] // addresses of those whose client is not known
	owners    limit.Gate[owner]

	mu      sync.Mutex
	entered int
	unknown int
}

// owner is whom a visit counts for.
type owner struct{ tenant, user string }

// New returns a door for limits, whose defaults are set.
func New(limits *transport.Limits) *Door { return &Door{limits: limits} }

// Strangers returns how many are inside that have not said who they are.
func (d *Door) Strangers() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unknown
}

// Visit is one who is inside. Its methods must not be called concurrently.
type Visit struct {
	door     *Door
	addr     string
	stranger bool
	counted  bool // for its owner
	owner    owner
}

// Enter counts one who comes, before anything else than its address is known.
func (d *Door) Enter(addr string) (Visit, *streamer.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.entered >= d.limits.Connections:
		return Visit{}, errCrowded
	case !d.addresses.Enter(addr, d.limits.ConnectionsPerAddress):
		return Visit{}, errConnections
	}
	d.entered++
	return Visit{door: d, addr: addr}, nil
}

// Tolerate counts a visit whose client is not known yet.
func (v *Visit) Tolerate() *streamer.Error {
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.unknown >= d.limits.Unauthenticated:
		return errCrowded
	case !d.strangers.Enter(v.addr, d.limits.UnauthenticatedPerAddress):
		return errConnections
	}
	d.unknown++
	v.stranger = true
	return nil
}

// Admit counts a visit for its identity. The anonymous one has no limit of its own.
func (v *Visit) Admit(who streamer.Identity) *streamer.Error {
	if o := (owner{who.Tenant, who.User}); o != (owner{}) {
		if !v.door.owners.Enter(o, v.door.limits.ConnectionsPerIdentity) {
			return errConnections
		}
		v.counted, v.owner = true, o
	}
	v.recognize()
	return nil
}

// recognize takes back Tolerate.
func (v *Visit) recognize() {
	if !v.stranger {
		return
	}
	v.stranger = false
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unknown--
	d.strangers.Leave(v.addr)
}

// Leave takes back all of the above.
func (v *Visit) Leave() {
	v.recognize()
	d := v.door
	if v.counted {
		d.owners.Leave(v.owner)
	}
	d.addresses.Leave(v.addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entered--
}
