package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
)

// behind runs a test in a bubble with a real service behind what wrap makes of it, and a
// client that reaches it over HTTP.
func behind(t *testing.T, wrap func(http.Handler) http.Handler, f func(t *testing.T, s *service, c *client.Client), opts ...client.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		inner := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		s := serve(t, inner, transport.WithAuthenticator(func(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
			if !strings.HasPrefix(c.Token, "good") {
				return streamer.Identity{}, errors.New("no")
			}
			return streamer.Identity{User: "alice"}, nil
		}))
		outer := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		front := &http.Server{Handler: wrap(s.api)}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = front.Serve(outer)
		}()
		tr := &http.Transport{DialContext: outer.dial}
		opts := append([]client.Option{client.WithToken("good"), client.WithLogger(slog.New(slog.DiscardHandler)),
			client.WithHTTPClient(&http.Client{Transport: tr, Timeout: time.Minute})}, opts...)
		c, err := client.New("http://server/", opts...)
		require.NoError(t, err)
		f(t, s, c)
		require.NoError(t, c.Close())
		tr.CloseIdleConnections()
		close(outer.closed)
		_ = front.Close()
		<-served
		close(inner.closed)
	})
}

// counted counts calls by method and path.
type counted struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counted) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

func (c *counted) wrap(h http.Handler) http.Handler {
	c.n = map[string]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.n[r.Method+" "+r.URL.Path]++
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

func TestOverHTTPOneStreamShowsAllRequestsAndLivesLong(t *testing.T) {
	t.Parallel()
	var calls counted
	behind(t, calls.wrap, func(t *testing.T, s *service, c *client.Client) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				r, err := c.Submit(t.Context(), "count", counting{N: 60, Pause: 30_000}) // half an hour
				require.NoError(t, err)
				exact(t, r, 60)
			})
		}
		wg.Wait()
		require.Equal(t, 20, calls.of("POST /requests"))
		require.Less(t, calls.of("GET /events"), 40, "streams are opened again after minutes, and when what is followed changes")
	})
}

func TestOverHTTPMoreRequestsThanAStreamTakesWaitForAPlace(t *testing.T) {
	t.Parallel()
	behind(t, func(h http.Handler) http.Handler { return h }, func(t *testing.T, s *service, c *client.Client) {
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				_, err := c.Request(t.Context(), "count", counting{N: 2, Pause: 1000})
				require.NoError(t, err)
				done.Add(1)
			})
		}
		wg.Wait()
		require.EqualValues(t, 200, done.Load())
	})
}

// answering answers calls with a status until told to stop.
func answering(status *atomic.Int64, header ...string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if code := int(status.Load()); code != 0 {
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestOverHTTPCallsAreRepeatedAsTheStatusSays(t *testing.T) {
	t.Parallel()
	for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var code atomic.Int64
			code.Store(int64(status))
			behind(t, answering(&code, "Retry-After", "7"), func(t *testing.T, s *service, c *client.Client) {
				began := time.Now()
				time.AfterFunc(5*time.Second, func() { code.Store(0) })
				_, err := c.Request(t.Context(), "echo", 1)
				require.NoError(t, err)
				require.GreaterOrEqual(t, time.Since(began), 7*time.Second)

				r, err := c.Submit(t.Context(), "count", counting{N: 3, Pause: 10_000})
				require.NoError(t, err)
				code.Store(int64(status))
				time.AfterFunc(20*time.Second, func() { code.Store(0) })
				exact(t, r, 3)
				require.EqualValues(t, 1, s.runs.Load())
			})
		})
	}
	for status, want := range map[int]string{400: streamer.ErrCodeValidation, 401: streamer.ErrCodeUnauthorized, 403: streamer.ErrCodeForbidden, 404: streamer.ErrCodeServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var code atomic.Int64
			code.Store(int64(status))
			behind(t, answering(&code), func(t *testing.T, s *service, c *client.Client) {
				_, err := c.Request(t.Context(), "echo", 1)
				require.Equal(t, want, codeOf(err))
			})
		})
	}
}

func TestOverHTTPATokenThatIsNotTakenAnyMoreIsRenewed(t *testing.T) {
	t.Parallel()
	var expired atomic.Bool
	asked := 0
	old := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if expired.Load() && r.Header.Get("Authorization") == "Bearer good1" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	behind(t, old, func(t *testing.T, s *service, c *client.Client) {
		_, err := c.Request(t.Context(), "echo", 1)
		require.NoError(t, err)
		expired.Store(true)
		_, err = c.Request(t.Context(), "echo", 1)
		require.NoError(t, err)
		require.Equal(t, 2, asked)
	}, client.WithTokenSource(func(context.Context) (string, error) {
		asked++
		return fmt.Sprint("good", asked), nil
	}))
	behind(t, func(h http.Handler) http.Handler { return h }, func(t *testing.T, s *service, c *client.Client) {
		_, err := c.Request(t.Context(), "echo", 1)
		require.Equal(t, streamer.ErrCodeUnauthorized, codeOf(err))
		require.NotContains(t, err.Error(), "bad")
	}, client.WithToken("bad"))
}

func TestOverHTTPAStreamThatGoesSilentIsOpenedAgain(t *testing.T) {
	t.Parallel()
	var deaf atomic.Bool
	silent := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if deaf.Load() && r.URL.Path == "/events" {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, ":\n\n")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	behind(t, silent, func(t *testing.T, s *service, c *client.Client) {
		deaf.Store(true)
		time.AfterFunc(10*time.Second, func() { deaf.Store(false) })
		r, err := c.Submit(t.Context(), "count", counting{N: 4, Pause: 1000})
		require.NoError(t, err)
		began := time.Now()
		exact(t, r, 4)
		require.Less(t, time.Since(began), 30*time.Second)
	})
}

func TestOverHTTPATokenIsNotCarriedToAnotherHost(t *testing.T) {
	t.Parallel()
	leaked := make(chan string, 10)
	redirect := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "server" {
				leaked <- r.Header.Get("Authorization")
				w.WriteHeader(http.StatusForbidden)
				return
			}
			http.Redirect(w, r, "http://elsewhere"+r.URL.Path, http.StatusTemporaryRedirect)
		})
	}
	behind(t, redirect, func(t *testing.T, s *service, c *client.Client) {
		_, err := c.Request(t.Context(), "echo", 1)
		require.Equal(t, streamer.ErrCodeForbidden, codeOf(err))
		require.Empty(t, <-leaked)
	})
}

func TestOverHTTPWhatIsNoAnswerOfTheServiceEndsWithAClearError(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>welcome")
		},
		"too large": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"type":"response","request_id":"r1","seq":1,"data":"`+strings.Repeat("x", 5000)+`"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behind(t, func(http.Handler) http.Handler { return h }, func(t *testing.T, s *service, c *client.Client) {
				_, err := c.Request(t.Context(), "echo", 1)
				require.Contains(t, []string{streamer.ErrCodeInternalError, streamer.ErrCodePayloadTooLarge}, codeOf(err))
			}, client.WithLimits(client.Limits{Message: 4000}))
		})
	}
}

func TestOverHTTPACancelOvertakesNoSubmit(t *testing.T) {
	t.Parallel()
	slow := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				time.Sleep(time.Second)
			}
			h.ServeHTTP(w, r)
		})
	}
	behind(t, slow, func(t *testing.T, s *service, c *client.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := c.Submit(ctx, "sleep", nil, client.WithID("z"), client.WithCancelOnContextEnd())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(5 * time.Second)
		r, err := c.Attach(t.Context(), "z")
		require.NoError(t, err)
		var last progress.Kind
		for e := range r.Events(t.Context()) {
			last = e.Kind
		}
		require.Equal(t, progress.Canceled, last)
	})
}

// pass lets time pass in a bubble.
func pass(d time.Duration) { time.Sleep(d) }
