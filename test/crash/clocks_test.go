package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

const (
	clockLease     = 3 * time.Second
	clockRetention = 6 * time.Second

	patience = 30 * time.Second
	tardy    = 3 * time.Second // that things may take longer on a machine with much to do
)

// apart says by how much the clock of a process is ahead. Those of the NATS servers agree, as
// NATS needs.
var apart = map[string]time.Duration{
	"gateway-1": time.Hour, "gateway-2": -time.Hour, "worker-1": time.Hour, "worker-3": -time.Hour,
}

// clocks is a fleet whose clocks differ.
type clocks struct {
	*fleet.Fleet
	began time.Time

	mu    sync.Mutex
	names map[int]string // of processes by their ids
}

// TestClocksAnHourApartChangeNothing has all that lasts for a while begin on one clock and end
// on another.
func TestClocksAnHourApartChangeNothing(t *testing.T) {
	began := time.Now()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	require.NoError(t, fleet.BuildShiftable(t.Context(), bin))
	t.Logf("built within %v", time.Since(began).Round(time.Second))
	c := &clocks{names: make(map[int]string)}
	var err error
	c.Fleet, err = fleet.Start(t.Context(), bin, fleet.Spec{
		Shape: fleet.Cluster, Gateways: 2, Workers: 3, Nodes: 3, Dir: dir,
		Lease: clockLease, Retention: clockRetention, Drain: time.Second, Attempts: 5, Concurrency: 48,
		Env: func(process string) []string { return []string{fleet.ShiftClock(apart[process])} },
		OnReady: func(p *fleet.Process) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.names[p.PID()] = p.Name
		},
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	c.began = time.Now()
	stale := []string{c.ticket(t, 0), c.ticket(t, 1)}
	issued := time.Now()

	t.Run("nothing is disturbed", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"a cancel through the other gateway":  c.cancel,
			"a retry after the delay":             c.retry,
			"a time limit":                        c.limit,
			"the end of the retention":            c.retention,
			"a ticket used at the other gateway":  c.useTicket,
			"a tag that the other gateway gave":   c.tag,
			"a page that the other gateway shows": c.page,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
	t.Run("a worker's death", c.takeover)
	t.Run("a ticket that nobody used in time", func(t *testing.T) {
		wait(t, time.Until(issued.Add(30*time.Second+2*time.Second)))
		for i, ticket := range stale {
			require.Equal(t, http.StatusUnauthorized, c.redeem(t, 1-i, ticket))
		}
	})
}

func wait(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func (c *clocks) server(gateway int) wire.Server {
	return wire.Server{Addr: c.Gateways[gateway].Addr, Token: "acme:alice", Cuts: new(wire.Cuts)}
}

// call makes a call to a gateway that answers in time.
func (c *clocks) call(t *testing.T, gateway int, method, path string, header map[string]string, body any) *wire.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := wire.Call(ctx, c.server(gateway), method, path, header, body)
	require.NoError(t, err)
	return a
}

func (c *clocks) submit(t *testing.T, gateway int, id, action, payload string) {
	t.Helper()
	a := c.call(t, gateway, http.MethodPost, "/requests", nil, wire.Request{Type: "request", ID: id, Action: action, Payload: json.RawMessage(payload)})
	require.Equal(t, http.StatusAccepted, a.Status, a.Body)
}

func (c *clocks) cancel(t *testing.T) {
	for gateway := range 2 {
		id := fmt.Sprint("cancel-", gateway)
		c.submit(t, gateway, id, "sleep", `{"ms":600000}`)
		seen := c.watch(t, gateway, id)
		c.started(t, id, 1)
		began := time.Now()
		a := c.call(t, 1-gateway, http.MethodDelete, "/requests/"+id, nil, nil)
		require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, a.Status, a.Body)
		v := ended(t, seen)
		require.Equal(t, "CANCELED", v.end.Code())
		require.Less(t, time.Since(began), tardy)
	}
}

func (c *clocks) retry(t *testing.T) {
	const delay, requests = 2 * time.Second, 12
	var seen []<-chan view
	for i := range requests {
		id := fmt.Sprint("retry-", i)
		c.submit(t, i%2, id, "fail", fmt.Sprintf(`{"code":"OUT_OF_PAPER","message":"try again","times":1,"retry_ms":%d}`, delay.Milliseconds()))
		seen = append(seen, c.watch(t, 1-i%2, id))
	}
	for i, done := range seen {
		v := ended(t, done)
		require.Equal(t, "complete", v.end.Type)
		runs := c.runs(t, fmt.Sprint("retry-", i))
		require.Len(t, runs, 2)
		waited := runs[1].start.Sub(runs[0].end)
		require.Greater(t, waited, delay-100*time.Millisecond)
		require.Less(t, waited, delay+tardy)
	}
}

func (c *clocks) limit(t *testing.T) {
	const limit = 2 * time.Second
	for i := range 4 {
		id := fmt.Sprint("limit-", i)
		a := c.call(t, i%2, http.MethodPost, "/requests", nil, map[string]any{
			"type": "request", "id": id, "action": "sleep", "payload": map[string]any{"ms": 600_000}, "timeout_ms": limit.Milliseconds(),
		})
		require.Equal(t, http.StatusAccepted, a.Status, a.Body)
	}
	for i := range 4 {
		id := fmt.Sprint("limit-", i)
		v := ended(t, c.watch(t, 1-i%2, id))
		require.Equal(t, "TIMEOUT", v.end.Code())
		ran := c.runs(t, id)
		require.Len(t, ran, 1)
		took := ran[0].end.Sub(ran[0].start)
		require.Greater(t, took, limit-100*time.Millisecond)
		require.Less(t, took, limit+tardy)
	}
}

func (c *clocks) retention(t *testing.T) {
	type life struct{ from, to time.Time } // the end was between
	lives := make(map[string]life)
	for gateway := range 2 {
		began := time.Now()
		short, long := fmt.Sprint("kept-short-", gateway), fmt.Sprint("kept-long-", gateway)
		a := c.call(t, gateway, http.MethodPost, "/requests", nil, wire.Request{Type: "request", ID: short, Action: "echo", Payload: json.RawMessage(`1`)})
		require.Equal(t, http.StatusOK, a.Status, a.Body)
		lives[short] = life{began, time.Now()}
		began = time.Now()
		c.submit(t, gateway, long, "count", `{"n":3}`)
		ended(t, c.watch(t, gateway, long))
		lives[long] = life{began, time.Now()}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for gone := make(map[string]int); len(gone) < len(lives); <-tick.C {
		for id, life := range lives {
			for gateway := range 2 {
				before := time.Since(life.to)
				a := c.call(t, gateway, http.MethodGet, "/requests/"+id, nil, nil)
				after := time.Since(life.from)
				switch a.Status {
				case http.StatusOK:
					require.Less(t, before, clockRetention+tardy, "%s is there too long", id)
				case http.StatusNotFound:
					require.Greater(t, after, clockRetention, "%s is gone too early", id)
					gone[id] |= 1 << gateway
				default:
					require.Fail(t, "unexpected", "%d %s", a.Status, a.Body)
				}
			}
			if gone[id] != 3 {
				delete(gone, id)
			}
		}
	}
}

func (c *clocks) ticket(t *testing.T, gateway int) string {
	t.Helper()
	a := c.call(t, gateway, http.MethodPost, "/tickets", nil, nil)
	require.Equal(t, http.StatusCreated, a.Status, a.Body)
	var issued struct {
		Ticket  string `json:"ticket"`
		Expires int    `json:"expires_in_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.Body), &issued))
	require.Equal(t, 30_000, issued.Expires)
	return issued.Ticket
}

// redeem uses a ticket, to look at a request that does not exist unless it is refused.
func (c *clocks) redeem(t *testing.T, gateway int, ticket string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := c.server(gateway)
	s.Token = ""
	a, err := wire.Call(ctx, s, http.MethodGet, "/requests/nothing?ticket="+ticket, nil, nil)
	require.NoError(t, err)
	return a.Status
}

func (c *clocks) useTicket(t *testing.T) {
	for gateway := range 2 {
		ticket := c.ticket(t, gateway)
		require.Equal(t, http.StatusNotFound, c.redeem(t, 1-gateway, ticket), "it is good for another gateway")
		require.Equal(t, http.StatusUnauthorized, c.redeem(t, gateway, ticket), "it is good once")
	}
}

func (c *clocks) tag(t *testing.T) {
	c.submit(t, 0, "tag", "count", `{"n":2,"every_ms":2000}`)
	c.started(t, "tag", 1)
	at := "/requests/tag"
	for gateway := 0; ; gateway = 1 - gateway {
		a := c.call(t, gateway, http.MethodGet, at, nil, nil)
		tag := a.Header.Get("ETag")
		require.NotEmpty(t, tag)
		began := time.Now()
		next := c.call(t, 1-gateway, http.MethodGet, at, map[string]string{"If-None-Match": tag, "Prefer": "wait=1"}, nil)
		if a.Message.Status == "completed" {
			require.Equal(t, http.StatusNotModified, next.Status)
			require.GreaterOrEqual(t, time.Since(began), time.Second-100*time.Millisecond)
			return
		}
		require.Contains(t, []int{http.StatusOK, http.StatusNotModified}, next.Status, next.Body)
		require.Less(t, time.Since(began), time.Second+tardy)
	}
}

func (c *clocks) page(t *testing.T) {
	c.submit(t, 1, "page", "count", `{"n":20,"every_ms":100}`)
	at := wire.Cursor{ID: "page"}
	for done, gateway := false, 0; !done; gateway = 1 - gateway {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		list, over, a, err := wire.Page(ctx, c.server(gateway), at, 5*time.Second)
		cancel()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.Status, a.Body)
		done = over
		for _, m := range list {
			if m.Epoch != "" {
				at.Epoch = m.Epoch
			}
			if m.IsEvent() && m.Seq > at.After {
				require.Equal(t, at.After+1, m.Seq)
				at.After = m.Seq
			}
		}
	}
	require.EqualValues(t, 23, at.After, "accepted, started, outputs and the end")
}

// takeover kills a worker whose clock is ahead, and one whose clock is behind. What they ran
// goes on with others, a lease later; what others run is left alone.
func (c *clocks) takeover(t *testing.T) {
	const (
		outputs = 120
		length  = 12 * time.Second // longer than it takes until a sweep looks for lost requests
	)
	type request struct {
		id, process string
		attempts    int
		outputs     int
		seen        <-chan view
	}
	var requests []*request
	count := make(map[string]int)
	for i := 0; count["worker-1"] < 2 || count["worker-2"] < 2 || count["worker-3"] < 2; i++ {
		require.Less(t, i, 40, "requests that the workers share: %v", count)
		r := &request{id: fmt.Sprint("long-", i), attempts: 1}
		if i%2 == 0 {
			r.outputs = outputs
			c.submit(t, i/2%2, r.id, "count", fmt.Sprintf(`{"n":%d,"every_ms":%d,"checkpoint":true}`, outputs, length.Milliseconds()/outputs))
		} else {
			c.submit(t, i/2%2, r.id, "sleep", fmt.Sprintf(`{"ms":%d}`, length.Milliseconds()))
		}
		r.seen = c.watch(t, i%2, r.id)
		r.process = c.started(t, r.id, 1).process
		count[r.process]++
		requests = append(requests, r)
	}
	for _, victim := range []*fleet.Process{c.Workers[0], c.Workers[2]} {
		at := time.Now()
		pid := victim.Kill(time.Minute)
		require.NoError(t, victim.WaitGone(t.Context(), pid))
		for _, r := range requests {
			if r.process != victim.Name {
				continue
			}
			r.attempts++
			next := c.started(t, r.id, r.attempts)
			require.NotEqual(t, victim.Name, next.process)
			took := next.start.Sub(at)
			t.Logf("%s went from %s to %s after %v", r.id, r.process, next.process, took.Round(time.Millisecond))
			require.Greater(t, took, clockLease/3)
			require.Less(t, took, clockLease+2*time.Second+3*tardy)
			r.process = next.process
		}
		victim.Raise()
		require.NoError(t, victim.WaitReady(t.Context()))
	}
	for _, r := range requests {
		v := ended(t, r.seen)
		require.Equal(t, "complete", v.end.Type, "%s: %s", r.id, v.end.Raw)
		require.Len(t, c.runs(t, r.id), r.attempts, "%s ran as often as its worker was killed, and once more", r.id)
		require.Len(t, v.outputs, r.outputs)
		for i, data := range v.outputs {
			require.JSONEq(t, fmt.Sprintf(`{"i":%d}`, i), string(data))
		}
	}
}
