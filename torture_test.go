package streamer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

// The randomised tests drive routers that share a log and a queue, both with faults, with
// submits, cancels, viewers and restarts, and check every guarantee on what was seen.
// STREAMER_SEED repeats one world; STREAMER_WORLDS sets how many there are.

const (
	longest  = 2 * time.Second // of what the faults delay
	grace    = 3 * time.Second
	attempts = 3
	brief    = 8 * time.Second // retention of the action whose logs go soon
)

func TestGuaranteesHoldUnderFaults(t *testing.T) {
	worlds, first := 40, rand.Uint64N(1<<40)
	if s := os.Getenv("STREAMER_WORLDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		worlds = n
	}
	if s := os.Getenv("STREAMER_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		worlds, first = 1, n
	}
	var total tally
	t.Run("worlds", func(t *testing.T) {
		for i := range uint64(worlds) {
			seed := first + i
			t.Run(fmt.Sprintf("STREAMER_SEED=%d", seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { inMemory(t, seed, &total) })
			})
		}
	})
	t.Logf("first seed %d: %s", first, total.String())
	if worlds > 1 && !t.Failed() {
		total.require(t)
	}
}

// tally counts what happened in all worlds, so that a run which proves nothing fails.
type tally struct {
	steps, submits, acked, canceled, outputs, viewed                            atomic.Int64
	fenced, takeovers, duplicates, gaps, lagging, handedBack, swept, faultsSeen atomic.Int64
}

func (c *tally) String() string {
	return fmt.Sprintf("steps %d, submits %d, acknowledged %d, canceled %d, outputs %d, events viewed %d; fenced %d, takeovers %d, duplicate deliveries %d, gaps %d, lagging viewers %d, handed back %d, swept %d, faults %d",
		c.steps.Load(), c.submits.Load(), c.acked.Load(), c.canceled.Load(), c.outputs.Load(), c.viewed.Load(),
		c.fenced.Load(), c.takeovers.Load(), c.duplicates.Load(), c.gaps.Load(), c.lagging.Load(), c.handedBack.Load(), c.swept.Load(), c.faultsSeen.Load())
}

func (c *tally) require(t *testing.T) {
	require.Greater(t, c.steps.Load(), int64(100_000), "steps")
	require.Greater(t, c.acked.Load()*10, c.submits.Load()*6, "most submits succeed")
	for name, n := range map[string]*atomic.Int64{
		"canceled": &c.canceled, "outputs": &c.outputs, "fenced": &c.fenced, "takeovers": &c.takeovers, "duplicates": &c.duplicates,
		"gaps": &c.gaps, "lagging": &c.lagging, "handed back": &c.handedBack, "swept": &c.swept,
	} {
		require.Positive(t, n.Load(), "%s: a state that this test is for never came about", name)
	}
}

// job is the payload of all requests: what the handler does.
type job struct {
	Do    string `json:"do"`
	N     int    `json:"n"`
	Pause int    `json:"pause_ms"`
}

// terms are how long things take in a world.
type terms struct {
	lease    time.Duration
	slow     time.Duration // what a refusal may take longer than the library needs for it
	patience time.Duration // how long all takes to end once nothing is disturbed
	ids      int           // that requests have
	actors   int
	steps    int // of an actor
	restarts int
}

// faults disturb what routers of a world keep requests in.
type faults interface {
	// open returns a log and a queue as a process has them, and what closes them.
	open() (progress.Log, queue.Queue, func())
	set(yes bool)
	duplicates() int64 // tickets that were there twice
	seen() int64
}

// world is one run.
type world struct {
	t     *testing.T
	seed  uint64
	total *tally

	terms
	store  progress.Log // as it is, without faults
	faults faults
	nodes  [2]atomic.Pointer[node]
	holder atomic.Pointer[node] // the last that began to run what is held
	ctx    context.Context
	work   sync.WaitGroup

	mu      sync.Mutex
	rng     *rand.Rand
	history map[progress.Key]*history
	over    []streamer.Stats // of nodes that were shut down
}

type node struct {
	*streamer.Mux
	ran   chan error
	close func()
}

func newWorld(t *testing.T, seed uint64, total *tally, terms terms, store progress.Log, faults faults) *world {
	w := &world{
		t: t, seed: seed, total: total, terms: terms, store: store, faults: faults, rng: rand.New(rand.NewPCG(seed, 1)),
		history: make(map[progress.Key]*history), ctx: t.Context(),
	}
	for i := range w.nodes {
		w.nodes[i].Store(w.boot())
	}
	return w
}

func (w *world) boot() *node {
	n := &node{ran: make(chan error, 1)}
	log, queue, shut := w.faults.open()
	n.close = shut
	n.Mux = streamer.NewRouter(streamer.WithLogger(quiet()), streamer.WithLog(log), streamer.WithQueue(queue), streamer.WithLocalLog(),
		streamer.WithAttempts(attempts), streamer.WithCancelGrace(grace), streamer.WithConcurrency(16), streamer.WithRetention(24*time.Hour),
		streamer.WithBackoff(func(int) time.Duration { return time.Second }))
	n.Handle("job", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		if req.ID == held {
			w.holder.Store(n)
		}
		return w.handle(ctx, req, p)
	}))
	n.Handle("brief", streamer.HandlerFunc(w.handle), streamer.WithRetention(brief))
	n.Handle("short", streamer.HandlerFunc(w.handle), streamer.WithEstimate(0))
	go func() { n.ran <- n.Run(w.ctx) }()
	return n
}

// roll returns a number from 0 to n-1.
func (w *world) roll(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *world) step() { w.total.steps.Add(1) }

func (w *world) node() *node { return w.nodes[w.roll(len(w.nodes))].Load() }

// handle is the handler of all actions.
func (w *world) handle(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	w.step()
	var j job
	if err := json.Unmarshal(req.Payload, &j); err != nil {
		return nil, err
	}
	pause := time.Duration(j.Pause) * time.Millisecond
	switch j.Do {
	case "count":
		var i int
		if _, err := streamer.LastCheckpoint(ctx, &i); err != nil {
			return nil, err
		}
		for ; i < j.N; i++ {
			if err := streamer.Output(ctx, map[string]int{"i": i}); err != nil {
				return nil, err
			}
			w.step()
			w.total.outputs.Add(1)
			_ = p.Report(float64(i)/float64(j.N)*100, "counting")
			if i%3 == 2 {
				if err := streamer.Checkpoint(ctx, i+1); err != nil {
					return nil, err
				}
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		_ = p.Report(100, "done")
		return ok(map[string]int{"n": j.N})
	case "stubborn":
		time.Sleep(4 * w.lease)
		return ok("stubborn")
	case "fail":
		return nil, streamer.NewError("OUT_OF_PAPER", "refill").WithRetry(pause)
	case "panic":
		panic("on purpose")
	default:
		return ok(req.Payload)
	}
}

// run lives through one world.
func (w *world) run() {
	w.faults.set(true)
	var actors sync.WaitGroup
	for range w.actors {
		actors.Go(w.act)
	}
	actors.Go(w.restart)
	actors.Wait()

	w.faults.set(false)
	w.quiesce()
	w.work.Wait() // what is collected has ended
	w.check()

	for i := range w.nodes {
		w.stop(w.nodes[i].Load())
	}
	time.Sleep(5 * w.lease) // for stubborn handlers to return
	w.count()
}

// act is a client that submits, cancels and follows at random.
func (w *world) act() {
	for range w.steps {
		w.step()
		who := streamer.Identity{Tenant: "acme", User: []string{"alice", "bob"}[w.roll(2)]}
		id := fmt.Sprintf("r%d", w.roll(w.ids))
		switch w.roll(10) {
		case 0, 1, 2, 3:
			w.submit(who, id)
		case 4:
			w.cancel(who, id)
		default:
			w.view(who, id)
		}
		time.Sleep(time.Duration(w.roll(2000)) * time.Millisecond)
	}
}

// body returns the payload of id: mostly the same.
func (w *world) body(id string) (action string, payload json.RawMessage) {
	n, _ := strconv.Atoi(id[1:])
	j := job{Do: "count", N: n, Pause: 40 * (n % 5) * (n % 5)}
	action = "job"
	switch n % 12 {
	case 0:
		action = "short"
	case 1, 2:
		action, j.Pause = "brief", 10
	case 3:
		j = job{Do: "stubborn"}
	case 4:
		j = job{Do: "fail", Pause: 500}
	case 5:
		j.Do = "panic"
	}
	if w.roll(20) == 0 {
		j.N, j.Pause = j.N+300, 10
	}
	payload, _ = json.Marshal(j)
	return action, payload
}

func (w *world) submit(who streamer.Identity, id string) {
	action, payload := w.body(id)
	w.total.submits.Add(1)
	began := time.Now()
	receipt, err := w.node().Submit(w.ctx, who, &streamer.Request{ID: id, Action: action, Payload: payload})
	if err != nil {
		c := code(w.t, err)
		switch c {
		case streamer.ErrCodeServiceUnavailable, streamer.ErrCodeConflict:
		default:
			w.t.Errorf("submit: unexpected error %v", err)
		}
		if action != "short" && time.Since(began) > 2*2*time.Second+longest+w.slow {
			w.t.Errorf("submit: refused after %v", time.Since(began))
		}
		if c == streamer.ErrCodeConflict {
			w.total.acked.Add(1) // an answer as good as another
		}
		return
	}
	w.total.acked.Add(1)
	w.known(who, id).acked(receipt, payload)
}

func (w *world) cancel(who streamer.Identity, id string) {
	st, err := w.node().Cancel(w.ctx, who, id, "enough")
	if err != nil {
		return
	}
	w.total.canceled.Add(1)
	w.known(who, id).canceled(st)
}

// view follows a request for some events, from where an earlier viewer may have stopped.
func (w *world) view(who streamer.Identity, id string) {
	v, err := w.node().Attach(w.ctx, who, id)
	if err != nil {
		return
	}
	h := w.known(who, id)
	page := v.Page()
	after := h.cursor(&page, w)
	n, slow := 1+w.roll(20), w.roll(4) == 0
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(w.roll(10_000))*time.Millisecond)
	defer cancel()
	for e, err := range v.Events(ctx, after) {
		if err != nil {
			return
		}
		w.step()
		w.total.viewed.Add(1)
		if e.Seq != after+1 {
			w.t.Errorf("%s: viewer at %d got event %d", id, after, e.Seq)
		}
		after = e.Seq
		h.saw(page.State.Epoch, e)
		if n--; n == 0 {
			return
		}
		if slow {
			time.Sleep(time.Duration(w.roll(1500)) * time.Millisecond)
			if st, err := w.store.Tail(w.ctx, h.key); err == nil && st.Epoch == page.State.Epoch && st.Last > after+5 {
				w.total.lagging.Add(1)
			}
		}
	}
}

// held is a request whose handler outlasts the shutdown of the node that runs it.
const held = "s3"

// restart replaces nodes, one at a time, the first as it is busy.
func (w *world) restart() {
	for round := range w.restarts {
		time.Sleep(time.Duration(5+w.roll(10)) * time.Second)
		i := w.roll(len(w.nodes))
		if round == 0 {
			i = w.hold()
		}
		old := w.nodes[i].Swap(w.boot())
		w.stop(old)
	}
}

// hold returns a node that has begun to run what is held.
func (w *world) hold() int {
	for deadline := time.Now().Add(w.patience); time.Now().Before(deadline); {
		w.submit(streamer.Identity{Tenant: "acme", User: "alice"}, held)
		time.Sleep(time.Second)
		for i := range w.nodes {
			if n := w.nodes[i].Load(); n == w.holder.Load() {
				return i
			}
		}
	}
	w.t.Errorf("%s does not run", held)
	return 0
}

func (w *world) stop(n *node) {
	ctx, cancel := context.WithTimeout(w.ctx, 8*time.Second)
	defer cancel()
	err := n.Shutdown(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Errorf("shutdown: %v", err)
	}
	if err := <-n.ran; err != nil {
		w.t.Errorf("run: %v", err)
	}
	n.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = append(w.over, n.Stats())
}

// quiesce waits until every request has ended.
func (w *world) quiesce() {
	deadline := time.Now().Add(w.patience)
	for {
		open := ""
		for p, err := range w.store.Open(w.ctx, 0) {
			if err != nil {
				w.t.Fatal(err)
			}
			open += fmt.Sprintf(" %s (%s, attempt %d, %d events)", p.Key.ID, p.State.Phase, p.State.Attempt, p.State.Last)
		}
		if open == "" {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("requests that never end:%s", open)
		}
		time.Sleep(time.Second)
	}
}

func (w *world) count() {
	for _, s := range w.over {
		w.total.fenced.Add(int64(s.Fenced))
		w.total.handedBack.Add(int64(s.Returned))
		w.total.swept.Add(int64(s.Swept))
	}
	w.total.duplicates.Add(w.faults.duplicates())
	w.total.faultsSeen.Add(w.faults.seen())
}
