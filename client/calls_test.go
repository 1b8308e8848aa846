package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
)

// through makes a wrap of a function that is given what to go on with.
func through(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, h) })
	}
}

func plain(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

func TestOverHTTPACursorThatNoServerGaveIsAGapAndLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	behind(t, through(plain), func(t *testing.T, s *service, c *client.Client) {
		good, err := c.Submit(t.Context(), "count", counting{N: 5, Pause: 2000}, client.WithID("good"))
		require.NoError(t, err)
		pass(time.Second)
		_, err = c.Attach(t.Context(), "unknown", client.After("not an epoch", 1))
		require.Equal(t, streamer.ErrCodeNotFound, codeOf(err))
		exact(t, good, 5)
		for _, epoch := range []string{"not an epoch", strings.Repeat("e", 65), strings.Repeat("e", 1000)} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := c.Attach(ctx, "good", client.After(epoch, 1<<63))
			require.NoError(t, err)
			for e, err := range r.Events(t.Context()) {
				require.NoError(t, err)
				require.Equal(t, client.Gap, e.Kind)
				require.EqualValues(t, 1, e.Gap.Oldest)
				break
			}
			r.Detach()
		}
	})
}

func TestOverHTTPWhatIsRefusedOfSeveralIsRefusedForItsOwnReason(t *testing.T) {
	t.Parallel()
	refuse := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		first, _, _ := strings.Cut(r.URL.Query().Get("r"), ":")
		switch first {
		case "a":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"code":"FORBIDDEN","detail":"not you"}`)
		default:
			next.ServeHTTP(w, r)
		}
	})
	behind(t, refuse, func(t *testing.T, s *service, c *client.Client) {
		r, err := c.Submit(t.Context(), "count", counting{N: 3, Pause: 2000}, client.WithID("c"))
		require.NoError(t, err)
		var wg sync.WaitGroup
		for id, code := range map[string]string{"a": streamer.ErrCodeForbidden, "b": streamer.ErrCodeNotFound} {
			wg.Go(func() {
				_, err := c.Attach(t.Context(), id)
				require.Equal(t, code, codeOf(err))
			})
		}
		wg.Wait()
		exact(t, r, 3)
	})
}

// late answers late.
type late struct {
	http.ResponseWriter
	by time.Duration
}

func (l *late) WriteHeader(status int) {
	pass(l.by)
	l.ResponseWriter.WriteHeader(status)
}

func TestOverHTTPALateAcknowledgmentLeavesAnAttachAlone(t *testing.T) {
	t.Parallel()
	slow := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost {
			next.ServeHTTP(&late{w, 2 * time.Second}, r)
			return
		}
		pass(1500 * time.Millisecond)
		next.ServeHTTP(w, r)
	})
	behind(t, slow, func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Submit(ctx, "count", counting{N: 50, Pause: 2000}, client.WithID("r1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := c.Attach(ctx, "r1")
		require.NoError(t, err)
		exact(t, r, 50)
	})
}

func TestOverHTTPNobodyWatchesWhatAnAbandonedSubmitStarted(t *testing.T) {
	t.Parallel()
	var views atomic.Int64
	slow := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost {
			next.ServeHTTP(&late{w, 2 * time.Second}, r)
			return
		}
		views.Add(1)
		next.ServeHTTP(w, r)
	})
	behind(t, slow, func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Submit(ctx, "count", counting{N: 50, Pause: 2000}, client.WithID("r1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		pass(10 * time.Second)
		require.Zero(t, views.Load())
	})
}

func TestOverHTTPCloseSendsCancelsFirstAndEndsTheRestAtOnce(t *testing.T) {
	t.Parallel()
	var canceled, posting atomic.Int64
	slow := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Method == http.MethodDelete:
			pass(time.Second)
			canceled.Add(1)
		case r.Header.Get("Idempotency-Key") == "stuck":
			posting.Add(1)
			_, _ = io.Copy(io.Discard, r.Body) // then the server notices when the client is gone
			<-r.Context().Done()
			posting.Add(-1)
			return
		}
		next.ServeHTTP(w, r)
	})
	behind(t, slow, func(t *testing.T, s *service, c *client.Client) {
		stuck := goRequest(t.Context(), c, "echo", client.WithID("stuck"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Request(ctx, "sleep", nil, client.WithCancelOnContextEnd())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, posting.Load())
		time.AfterFunc(500*time.Millisecond, func() { require.Zero(t, posting.Load()) })
		began := time.Now()
		require.NoError(t, c.Close())
		require.EqualValues(t, 1, canceled.Load())
		require.Less(t, time.Since(began), 1500*time.Millisecond)
		require.ErrorIs(t, (<-stuck).err, client.ErrClosed)
	})
}

func TestOverHTTPCloseDoesNotWaitLongForCancels(t *testing.T) {
	t.Parallel()
	deaf := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodDelete {
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
	behind(t, deaf, func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Request(ctx, "sleep", nil, client.WithCancelOnContextEnd())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		require.NoError(t, c.Close())
		require.InDelta(t, 2, time.Since(began).Seconds(), 0.1)
	})
}

func TestOverHTTPARefusedTokenIsRenewedOnceAndRepeatsOnlyThoseCalls(t *testing.T) {
	t.Parallel()
	var posts, asked atomic.Int64
	var expired atomic.Bool
	gate := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
		if expired.Load() && r.Header.Get("Authorization") == "Bearer good1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Idempotency-Key") == "short" {
			pass(3 * time.Second) // under way while the token expires
		}
		next.ServeHTTP(w, r)
	})
	behind(t, gate, func(t *testing.T, s *service, c *client.Client) {
		var requests []*client.Request
		for range 5 {
			r, err := c.Submit(t.Context(), "sleep", nil)
			require.NoError(t, err)
			requests = append(requests, r)
		}
		short := goRequest(t.Context(), c, "echo", client.WithID("short"))
		pass(time.Second)
		expired.Store(true)
		var wg sync.WaitGroup
		for _, r := range requests {
			wg.Go(func() { require.NoError(t, r.Cancel(t.Context(), "enough")) })
		}
		wg.Wait()
		require.NoError(t, (<-short).err)
		require.EqualValues(t, 6, posts.Load())
		require.EqualValues(t, 2, asked.Load())
	}, client.WithTokenSource(func(context.Context) (string, error) {
		return fmt.Sprint("good", asked.Add(1)), nil
	}))
}

func TestOverHTTPATokenThatIsRefusedTwiceInARowEndsTheWait(t *testing.T) {
	t.Parallel()
	var calls counted
	behind(t, calls.wrap, func(t *testing.T, s *service, c *client.Client) {
		_, err := c.Request(t.Context(), "echo", nil)
		require.Equal(t, streamer.ErrCodeUnauthorized, codeOf(err))
		require.Equal(t, 2, calls.of("POST /requests"))
	}, client.WithToken("bad"))
}

// phases notes the states of a client.
type phases struct {
	mu  sync.Mutex
	all []client.Phase
}

func (p *phases) note(s client.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, s.Phase)
}

func (p *phases) seen() []client.Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]client.Phase(nil), p.all...)
}

func TestOverHTTPTheStateIsOpenWhenTheServerHasAnswered(t *testing.T) {
	t.Parallel()
	var states phases
	var code atomic.Int64
	code.Store(http.StatusBadGateway)
	behind(t, answering(&code), func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.Request(ctx, "echo", 1)
		require.ErrorContains(t, err, "502")
		require.NotContains(t, states.seen(), client.Open)
		code.Store(0)
		r, err := c.Submit(t.Context(), "count", counting{N: 2, Pause: 1000})
		require.NoError(t, err)
		require.Equal(t, client.Open, c.State().Phase)
		exact(t, r, 2)
	}, client.WithStateFunc(states.note))
}

func TestOverHTTPBackoffGrowsWhenFailuresAreSlow(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	slow := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		n.Add(1)
		pass(6 * time.Second)
		w.WriteHeader(http.StatusBadGateway)
	})
	behind(t, slow, func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := c.Request(ctx, "echo", 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, n.Load(), int64(65), "without backoff there are nearly 100")
		require.NoError(t, c.Close())
		pass(6 * time.Second) // the last call is over
	})
}

func TestOverHTTPADeadNetworkIsNoReasonToPoll(t *testing.T) {
	t.Parallel()
	var dead atomic.Bool
	var polls atomic.Int64
	dying := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		poll := r.Method == http.MethodGet && r.Header.Get("Accept") == "application/json"
		if dead.Load() {
			<-r.Context().Done()
			if poll {
				dead.Store(false)
			}
			return
		}
		if poll {
			polls.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	behind(t, dying, func(t *testing.T, s *service, c *client.Client) {
		dead.Store(true)
		_, err := c.Attach(t.Context(), "r1")
		require.Equal(t, streamer.ErrCodeNotFound, codeOf(err))
		require.False(t, dead.Load())
		r, err := c.Submit(t.Context(), "count", counting{N: 5, Pause: 5000})
		require.NoError(t, err)
		exact(t, r, 5)
		require.Zero(t, polls.Load())
	})
}

func TestOverHTTPAReconnectFindsOutThatStreamsAreHeldUp(t *testing.T) {
	t.Parallel()
	var cut, held atomic.Bool
	behind(t, through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if held.Load() {
			next = hold(next)
		}
		if r.Header.Get("Accept") == "text/event-stream" && !cut.Swap(true) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			r = r.WithContext(ctx)
			held.Store(true)
		}
		next.ServeHTTP(w, r)
	}), func(t *testing.T, s *service, c *client.Client) {
		r, err := c.Submit(t.Context(), "count", counting{N: 60, Pause: 1000})
		require.NoError(t, err)
		began := time.Now()
		exact(t, r, 60)
		require.Less(t, time.Since(began), 65*time.Second)
	})
}

func TestOverHTTPStreamsAreNotCompressedAndSubmitsNameTheirRequest(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	look := through(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Header.Get("Accept") == "text/event-stream":
			seen <- "stream " + r.Header.Get("Accept-Encoding")
		case r.Method == http.MethodPost:
			seen <- "submit " + r.Header.Get("Idempotency-Key")
		}
		next.ServeHTTP(w, r)
	})
	behind(t, look, func(t *testing.T, s *service, c *client.Client) {
		r, err := c.Submit(t.Context(), "count", counting{N: 2, Pause: 1000}, client.WithID("r1"))
		require.NoError(t, err)
		exact(t, r, 2)
		require.Equal(t, "submit r1", <-seen)
		require.Equal(t, "stream identity", <-seen)
	})
}
