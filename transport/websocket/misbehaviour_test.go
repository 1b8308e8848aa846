package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
)

// secret is in what handlers must not give away.
const secret = "hunter2"

// working returns a service whose router runs what is queued, and bounds outputs closely.
func working(t *testing.T, opts ...transport.Option) *service {
	t.Helper()
	var log progress.Log
	var mux *streamer.Mux
	s := setup{
		options: opts,
		log:     func(l progress.Log) progress.Log { log = l; return l },
		router: func(transport.Router) transport.Router {
			mux = streamer.NewRouter(streamer.WithLog(log), streamer.WithLogger(slog.New(slog.DiscardHandler)),
				streamer.WithLimits(streamer.Limits{Outputs: 100, OutputBytes: 20_000, Output: 15_000}))
			return mux
		},
	}.start(t)
	s.mux = mux
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, mux.Run(t.Context())) })
	t.Cleanup(running.Wait)
	return s
}

// bystander is a request that runs while others on its connection misbehave.
type bystander struct {
	*peer
	goOn chan struct{}
}

func (s *service) bystander(header ...string) *bystander {
	b := &bystander{s.hello(header...), make(chan struct{})}
	s.mux.Handle("stand by", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		select {
		case <-b.goOn:
		case <-ctx.Done():
		}
		return &streamer.Result{Success: true, Data: "unharmed"}, streamer.Output(ctx, "still here")
	}))
	b.runs("bystander", "stand by", "null")
	return b
}

// unharmed asserts that nothing else was sent on the connection, and that the request on it goes on.
func (b *bystander) unharmed() {
	b.t.Helper()
	b.lives()
	close(b.goOn)
	require.Equal(b.t, `"still here"`, string(b.expect("output", "bystander").Data))
	require.Equal(b.t, `"unharmed"`, string(b.expect("complete", "bystander").Result))
	b.lives()
}

// runs sends a request for queued work and reads until it runs.
func (p *peer) runs(id, action, payload string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"type":"request","id":%q,"action":%q,"payload":%s}`, id, action, payload))
	p.expect("acknowledgment", id)
	require.Equal(p.t, "running", p.expect("status", id).Status)
}

// ends reads the end of a request, which must be an error.
func (p *peer) ends(code, id string) *wire.Outbound {
	p.t.Helper()
	m := p.expect("error", id)
	require.NotZero(p.t, m.Seq, "an end is an event")
	require.Equal(p.t, code, m.Error.Code, m.Error.Message)
	return m
}

type unencodable struct{}

func (unencodable) MarshalJSON() ([]byte, error) { panic(secret) }

func TestAHandlerThatMisbehavesEndsItsRequestAndNothingElse(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	const internal = streamer.ErrCodeInternalError
	for i, row := range []struct {
		name, code string
		f          func() (any, error)
	}{
		{"panics", internal, func() (any, error) { panic(secret) }},
		{"panics with an error for clients", internal, func() (any, error) { panic(streamer.NewError("MINE", secret)) }},
		{"dereferences nil", internal, func() (any, error) { var p *int; return *p, nil }},
		{"leaves its goroutine", internal, func() (any, error) { runtime.Goexit(); return nil, nil }},
		{"returns nil and nil", internal, func() (any, error) { return nil, nil }},
		{"returns an error of its own", internal, func() (any, error) { return nil, errors.New(secret) }},
		{"returns an error whose code is none", internal, func() (any, error) { return nil, streamer.NewError("no code", secret) }},
		{"returns a channel", internal, func() (any, error) { return make(chan int), nil }},
		{"returns a function within a map", internal, func() (any, error) { return map[string]any{secret: func() {}}, nil }},
		{"returns NaN", internal, func() (any, error) { return math.NaN(), nil }},
		{"returns what panics when it is encoded", internal, func() (any, error) { return unencodable{}, nil }},
		{"returns JSON that is none", internal, func() (any, error) { return json.RawMessage(`{"` + secret), nil }},
		{"returns more than is kept", streamer.ErrCodePayloadTooLarge, func() (any, error) { return strings.Repeat(secret, 1<<18), nil }},
	} {
		h := streamer.HandlerFunc(func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
			data, err := row.f()
			if data == nil {
				return nil, err
			}
			return &streamer.Result{Success: true, Data: data}, err
		})
		short, queued := fmt.Sprintf("short-%d", i), fmt.Sprintf("queued-%d", i)
		s.mux.Handle(short, h, streamer.WithEstimate(0))
		s.mux.Handle(queued, h)
		b.send(fmt.Sprintf(`{"type":"request","id":%q,"action":%q,"ref":%q}`, short, short, row.name))
		m := b.ends(row.code, short)
		require.Equal(t, row.name, m.Ref)
		b.runs(queued, queued, "null")
		for _, m := range []*wire.Outbound{m, b.ends(row.code, queued)} {
			require.NotContains(t, string(m.Append(nil)), secret, row.name)
			require.Equal(t, row.code == internal, strings.Contains(string(m.Error.Details), "error_id"), row.name)
		}
	}
	b.unharmed()
}

func TestReportsOfWhatIsNoPercentageAreShownWithinBounds(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	reports := make(chan float64)
	s.mux.Handle("strange", streamer.HandlerFunc(func(_ context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		for percentage := range reports {
			if p.SetMetadata("value", percentage) == nil && (math.IsNaN(percentage) || math.IsInf(percentage, 0)) {
				return nil, errors.New("metadata that is no JSON was taken")
			}
			p.Report(percentage, fmt.Sprint(percentage))
		}
		return &streamer.Result{Success: true}, nil
	}))
	b.runs("r1", "strange", "null")
	for _, row := range []struct{ reported, shown float64 }{
		{math.NaN(), 0}, {math.Inf(-1), 0}, {-1, 0}, {30, 30}, {math.NaN(), 30}, {-1, 30}, {29, 30}, {101, 100}, {math.Inf(1), 100}, {0, 100},
	} {
		reports <- row.reported
		m := b.expect("progress", "r1")
		require.Equal(t, fmt.Sprint(row.reported), m.Message)
		require.Equal(t, row.shown, m.Percentage, m.Message)
	}
	close(reports)
	b.expect("complete", "r1")
	b.unharmed()
}

func TestWhatComesAfterAHandlersReturnIsShownNowhere(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	returned, done := make(chan bool), make(chan bool)
	s.mux.Handle("late", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		p.Report(50, "in time")
		go func() {
			defer close(done)
			<-returned
			for range 1000 {
				p.Report(99, "too late")
				_ = p.SetMetadata("late", true)
				if streamer.Output(ctx, "too late") == nil || streamer.Checkpoint(ctx, "too late") == nil {
					t.Error("what comes after the return was taken")
				}
			}
		}()
		return &streamer.Result{Success: true}, nil
	}))
	b.runs("r1", "late", "null")
	require.EqualValues(t, 50, b.expect("progress", "r1").Percentage)
	require.EqualValues(t, 3, b.expect("complete", "r1").Seq)
	close(returned)
	<-done
	again := s.hello()
	again.send(`{"type":"attach","id":"r1","after":2}`)
	again.expect("attached", "r1")
	require.Equal(t, "in time", again.expect("progress", "r1").Message)
	again.expect("complete", "r1")
	again.lives()
	b.unharmed()
}

func TestAMillionReportsFromManyGoroutinesAreMerged(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	const goroutines, each = 8, 125_000
	s.mux.Handle("flood", streamer.HandlerFunc(func(_ context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for i := range each {
					p.Report(100*float64(i+1)/each, "flooding")
				}
			})
		}
		wg.Wait()
		return &streamer.Result{Success: true}, nil
	}))
	began := time.Now()
	b.runs("r1", "flood", "null")
	shown, last := 0, -1.0
	m := b.next()
	for ; m.Type == "progress"; m = b.next() {
		require.Equal(t, "r1", m.RequestID)
		require.GreaterOrEqual(t, m.Percentage, last)
		last = m.Percentage
		shown++
	}
	require.Equal(t, "complete", m.Type)
	require.EqualValues(t, 3, m.Seq)
	require.EqualValues(t, 100, last)
	require.LessOrEqual(t, shown, 2+int(time.Since(began)/(100*time.Millisecond)))
	b.unharmed()
}

func TestOutputsWithoutEndAreBoundedPerRequest(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	for _, row := range []struct {
		name  string
		bytes int
		deaf  bool // goes on when it is told that no more is taken
		taken int
	}{
		{"many", 10, false, 100}, {"many-and-deaf", 10, true, 100},
		{"large", 1000, false, 20}, {"large-and-deaf", 1000, true, 20},
		{"too-large", 16_000, false, 0}, {"too-large-and-deaf", 16_000, true, 0},
	} {
		output := strings.Repeat("x", row.bytes-len(`""`))
		s.mux.Handle(row.name, streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
			for i := 0; !row.deaf || i < 10_000; i++ {
				if err := streamer.Output(ctx, output); err != nil && !row.deaf {
					return nil, err
				}
			}
			return &streamer.Result{Success: true}, nil
		}))
		b.runs(row.name, row.name, "null")
		again := s.hello()
		again.send(fmt.Sprintf(`{"type":"attach","id":%q,"after":2}`, row.name))
		again.expect("attached", row.name)
		for _, p := range []*peer{b.peer, again} {
			for i := range row.taken {
				require.EqualValues(t, i+3, p.expect("output", row.name).Seq)
			}
			require.EqualValues(t, row.taken+3, p.ends(streamer.ErrCodePayloadTooLarge, row.name).Seq)
		}
	}
	b.unharmed()
}

type order struct{ Count int }

func (o order) Validate() error {
	if o.Count < 1 {
		return errors.New("count: at least 1 is needed")
	}
	return nil
}

type refusing struct {
	streamer.HandlerFunc
	validate func() error
}

func (h refusing) Validate(*streamer.Request) error { return h.validate() }

func TestAPayloadThatIsNotValidIsRefusedAndNothingIsStored(t *testing.T) {
	t.Parallel()
	s := working(t)
	b := s.bystander()
	typed := streamer.Typed(func(_ context.Context, in order, _ streamer.Reporter) (order, error) { return in, nil })
	for i, row := range []struct {
		name                   string
		handler                streamer.Handler
		payload, code, message string
	}{
		{"a value", typed, `{"Count":0}`, streamer.ErrCodeValidation, "count: at least 1 is needed"},
		{"nothing", typed, `null`, streamer.ErrCodeValidation, "count: at least 1 is needed"},
		{"a type", typed, `{"Count":"1"}`, streamer.ErrCodeValidation, `payload field "Count": want a whole number, got string`},
		{"a number of many digits", typed, `{"Count":` + strings.Repeat("9", 50_000) + `}`, streamer.ErrCodeValidation, "want a whole number"},
		{"a field", typed, `{"Counts":1}`, streamer.ErrCodeValidation, `payload field "Counts": no such field`},
		{"an error of its own", refusing{echo, func() error { return errors.New(secret) }}, `1`, streamer.ErrCodeValidation, "the payload is not valid for action"},
		{"an error for clients", refusing{echo, func() error { return streamer.NewError("OUT_OF_PAPER", "tray 2") }}, `1`, "OUT_OF_PAPER", "tray 2"},
		{"a panic", refusing{echo, func() error { panic(secret) }}, `1`, streamer.ErrCodeInternalError, "internal error"},
	} {
		for kind, estimate := range map[string]time.Duration{"short": 0, "queued": time.Hour} {
			id := fmt.Sprintf("%s-%d", kind, i)
			s.mux.Handle(id, row.handler, streamer.WithEstimate(estimate))
			b.send(fmt.Sprintf(`{"type":"request","id":%q,"action":%q,"payload":%s}`, id, id, row.payload))
			m := b.fails(row.code, id)
			require.Contains(t, m.Error.Message, row.message, row.name)
			require.NotContains(t, string(m.Append(nil)), secret, row.name)
			require.Less(t, len(m.Error.Message), 200, row.name)
			b.send(fmt.Sprintf(`{"type":"attach","id":%q}`, id))
			b.fails(streamer.ErrCodeNotFound, id)
		}
	}
	b.unharmed()
}

func TestPayloadsPassByteForByteThroughTheQueue(t *testing.T) {
	t.Parallel()
	s := working(t, transport.WithLimits(transport.Limits{MessageBytes: 1 << 20}))
	s.mux.Handle("long", streamer.HandlerFunc(echo))
	b := s.bystander()
	for i, payload := range []string{
		`{"n":123456789012345678901234567890}`, strings.Repeat("9", 100_000), "0." + strings.Repeat("1", 100_000), `[-0.0,1e400,1E-7]`, `{"b":1,  "a":2}`,
	} {
		id := fmt.Sprintf("r%d", i)
		b.runs(id, "long", payload)
		require.Equal(t, payload, string(b.expect("complete", id).Result))
	}
	b.unharmed()
}

func TestAnExpiredRequestIsNotFoundLikeAnUnknownOrForeignOne(t *testing.T) {
	t.Parallel()
	s := working(t, transport.WithAuthenticator(byToken))
	s.mux.Handle("brief", streamer.HandlerFunc(echo), streamer.WithEstimate(0), streamer.WithRetention(time.Millisecond))
	foreign := s.bystander("Authorization", "Bearer alice")
	p := s.hello("Authorization", "Bearer bob")
	p.send(`{"type":"request","id":"expired","action":"brief"}`)
	p.expect("response", "expired")
	require.Eventually(t, func() bool { // not over the connection: whoever attached is told of the loss as well
		_, err := s.mux.Attach(t.Context(), streamer.Identity{User: "bob"}, "expired")
		return err != nil
	}, 5*time.Second, time.Millisecond)
	var answers []string
	for _, id := range []string{"expired", "unknown", "bystander"} {
		for _, message := range []string{
			`{"type":"attach","id":"%s"}`, `{"type":"attach","id":"%s","after":1,"epoch":"e"}`, `{"type":"cancel","id":"%s","reason":"mine"}`,
		} {
			p.send(fmt.Sprintf(message, id))
			m, err := p.read()
			require.NoError(t, err)
			require.Contains(t, m, `"NOT_FOUND"`)
			answers = append(answers, strings.ReplaceAll(m, id, "ID"))
		}
	}
	for _, a := range answers {
		require.Equal(t, answers[0], a)
	}
	p.lives()
	foreign.unharmed()
}

func TestAFloodOfAttachesIsAnsweredWithinLimitsAndThenClosed(t *testing.T) {
	t.Parallel()
	const attached, burst = 8, 400
	s := working(t, transport.WithLimits(transport.Limits{Attached: attached, MessageRate: 1, MessageBurst: burst}))
	b := s.bystander()
	p, sent := s.hello(), 0
	for i := range 50 { // requests that exist, and then others
		id := fmt.Sprintf("r%d", i)
		if i < 2*attached {
			_, err := s.mux.Submit(context.Background(), streamer.Identity{}, &streamer.Request{ID: id, Action: "stand by"})
			require.NoError(t, err)
		}
		for range 5 {
			p.send(fmt.Sprintf(`{"type":"attach","id":%q,"after":1,"ref":"%d"}`, id, sent))
			sent++
		}
	}
	answered := make(map[string]bool)
	for len(answered) < sent {
		m := p.next()
		if m.Type == "status" {
			continue
		}
		if m.Type == "error" {
			require.Contains(t, []string{streamer.ErrCodeNotFound, streamer.ErrCodeRateLimited}, m.Error.Code)
		}
		require.False(t, answered[m.Ref], "answered twice")
		answered[m.Ref] = true
	}
	require.Greater(t, s.handler.Stats().Attached, 1)
	require.LessOrEqual(t, s.handler.Stats().Attached, attached+1)
	for range 5 * burst {
		if p.conn.Write(context.Background(), ws.MessageText, []byte(`{"type":"attach","id":"bystander"}`)) != nil {
			break
		}
	}
	require.Contains(t, p.closed(4429), "retry_after_ms=")
	b.unharmed()
	require.Eventually(t, func() bool { return s.handler.Stats().Attached == 0 }, 5*time.Second, time.Millisecond)
}

func TestAFloodOfConnectionsIsRefusedAndThoseThatAreThereLiveOn(t *testing.T) {
	t.Parallel()
	const most, flood = 20, 200
	s := working(t, transport.WithLimits(transport.Limits{ConnectionsPerAddress: most}))
	b := s.bystander()
	peers := make(chan *peer, flood)
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range flood / 8 {
				switch p, resp, err := s.tryConnect(); {
				case err == nil:
					peers <- p
				case resp != nil && resp.StatusCode == 429 && resp.Header.Get("Retry-After") != "":
					refused.Add(1)
				default:
					t.Errorf("neither accepted nor refused: %v", err)
				}
			}
		})
	}
	wg.Wait()
	close(peers)
	require.Len(t, peers, most-1)
	require.EqualValues(t, flood-most+1, refused.Load())
	require.Equal(t, most, s.handler.Stats().Connections)
	b.unharmed()
	for p := range peers {
		p.lives()
		p.conn.CloseNow()
	}
	require.Eventually(t, func() bool { return s.handler.Stats().Connections == 1 }, 5*time.Second, time.Millisecond)
	s.hello().lives()
}
