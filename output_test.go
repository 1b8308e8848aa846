package streamer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

// gated stores outputs only while its gate is open.
type gated struct {
	*memlog.Log
	gate   chan struct{} // closed: open
	widest atomic.Int64  // events of the largest record
}

func (l *gated) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	l.widest.Store(max(l.widest.Load(), int64(len(rec.Events))))
	if n := len(rec.Events); n > 0 && rec.Events[0].Kind == progress.Output {
		select {
		case <-l.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return l.Log.Append(ctx, key, prev, rec)
}

func TestOutputWaitsWhileTooMuchIsUnwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outputs, size = 1000, 1000
		log := &gated{Log: memlog.New(), gate: make(chan struct{})}
		var taken atomic.Int64
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for i := range outputs {
					if err := streamer.Output(ctx, fmt.Sprintf("%0*d", size-2, i)); err != nil {
						return nil, err
					}
					taken.Add(1)
				}
				return ok(1)
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		require.LessOrEqual(t, taken.Load()*size, int64(256<<10))
		require.Greater(t, taken.Load()*size, int64(200<<10))
		close(log.gate)
		all := s.events("r1")
		require.Len(t, all, outputs+3)
		for i, e := range all[2 : outputs+2] {
			require.Equal(t, i, e.Index)
			require.Equal(t, fmt.Sprintf("%q", fmt.Sprintf("%0*d", size-2, i)), string(e.Data))
		}
		require.LessOrEqual(t, log.widest.Load(), int64(129), "records are bounded too")
	})
}

func TestOutputLargerThanWhatMayWaitIsTakenAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for range 3 {
					if err := streamer.Output(ctx, strings.Repeat("a", 1<<20)); err != nil {
						return nil, err
					}
				}
				return ok(1)
			}))
		}, streamer.WithLimits(streamer.Limits{Output: 2 << 20}))
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started output output output completed", kinds(s.events("r1")))
	})
}

func TestOutputThatWaitsIsReleasedByTheTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gated{Log: memlog.New(), gate: make(chan struct{})}
		released := make(chan error, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for {
					if err := streamer.Output(ctx, strings.Repeat("a", 10_000)); err != nil {
						released <- err
						return nil, err
					}
				}
			}), streamer.WithTimeout(time.Minute))
		}, streamer.WithLog(log))
		defer s.stop()
		began := time.Now()
		s.submit("x", "r1", ``)
		require.ErrorIs(t, receive(t, released), streamer.ErrTimeout)
		require.Equal(t, time.Minute, time.Since(began))
		close(log.gate)
		all := s.events("r1")
		require.Equal(t, streamer.ErrCodeTimeout, all[len(all)-1].Error.Code)
		require.Len(t, all, 3+26, "what was taken is stored")
	})
}

// checked is slow, and checks that no checkpoint is ahead of the outputs.
type checked struct {
	*memlog.Log
	t *testing.T
}

func (l checked) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	time.Sleep(time.Millisecond)
	if rec.State.Resume > rec.State.Outputs {
		l.t.Errorf("a checkpoint of %d outputs is stored with the first %d", rec.State.Resume, rec.State.Outputs)
	}
	return l.Log.Append(ctx, key, prev, rec)
}

func TestCheckpointIsStoredWithAllOutputsBeforeItWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := checked{memlog.New(), t}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				for i := range 10 {
					for range 500 { // more than one record takes
						if err := streamer.Output(ctx, i); err != nil {
							return nil, err
						}
					}
					if err := streamer.Checkpoint(ctx, i); err != nil {
						return nil, err
					}
					st, err := log.Tail(ctx, progress.Key{Scope: "acme/alice", ID: req.ID})
					if err != nil || string(st.Checkpoint) != fmt.Sprint(i) || st.Resume != 500*(i+1) || st.Outputs != st.Resume {
						t.Errorf("after checkpoint %d: %+v, %v", i, st, err)
					}
				}
				return ok(1)
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		require.Equal(t, progress.Completed, s.ends("x", "r1", ``).Kind)
	})
}

func TestNextAttemptGoesOnFromTheLastCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				var from struct{ Next int }
				found, err := streamer.LastCheckpoint(ctx, &from)
				if err != nil || found != (streamer.Attempt(ctx) > 1) {
					t.Errorf("attempt %d: %v %v", streamer.Attempt(ctx), found, err)
				}
				for i := from.Next; i < 6; i++ {
					if err := streamer.Output(ctx, i); err != nil {
						return nil, err
					}
					if i == 2*streamer.Attempt(ctx)-1 {
						from.Next = i + 1
						if err := streamer.Checkpoint(ctx, from); err != nil {
							return nil, err
						}
						_ = streamer.Output(ctx, "not covered")
						return nil, streamer.NewError("AGAIN", "").WithRetry(time.Second)
					}
				}
				return ok(from.Next)
			}), streamer.WithAttempts(4))
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		var shown []string
		for _, e := range s.events("r1") {
			switch e.Kind {
			case progress.Started:
				shown = shown[:e.Index]
			case progress.Output:
				require.Equal(t, len(shown), e.Index)
				shown = append(shown, string(e.Data))
			}
		}
		require.Equal(t, []string{"0", "1", "2", "3", "4", "5"}, shown, "what a client that follows the indexes has")
		require.Equal(t, `6`, string(s.end("r1").Data))
	})
}

func TestCheckpointOverItsLimitIsRefusedAndDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if err := streamer.Checkpoint(ctx, strings.Repeat("a", 64<<10-2)); err != nil {
					t.Error("64 KiB:", err)
				}
				err := streamer.Checkpoint(ctx, strings.Repeat("a", 64<<10-1))
				if err == nil || !strings.Contains(err.Error(), "65537 bytes, at most 65536") {
					t.Errorf("one more: %v", err)
				}
				var back string
				if found, err := streamer.LastCheckpoint(ctx, &back); !found || err != nil || len(back) != 64<<10-2 {
					t.Errorf("the last one is gone: %v %v", found, err)
				}
				if _, err := streamer.LastCheckpoint(ctx, new(int)); err == nil {
					t.Error("a string was decoded into an int")
				}
				return &streamer.Result{Success: true}, streamer.Output(ctx, 1)
			}))
		})
		defer s.stop()
		require.Equal(t, progress.Completed, s.ends("x", "r1", ``).Kind)
	})
}

func TestCheckpointsFromManyGoroutinesAreStoredOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				errs := make(chan error)
				for i := range 50 {
					go func() { errs <- streamer.Checkpoint(ctx, i) }()
				}
				for range 50 {
					if err := <-errs; err != nil {
						return nil, err
					}
				}
				return ok(1)
			}))
		})
		defer s.stop()
		require.Equal(t, progress.Completed, s.ends("x", "r1", ``).Kind)
		require.NotEmpty(t, s.state("r1").Checkpoint)
	})
}

// narrow is slow with outputs, and takes only so many in a record.
type narrow struct{ *memlog.Log }

func (l narrow) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if len(rec.Events) > 0 && rec.Events[0].Kind == progress.Output {
		time.Sleep(time.Second)
	}
	if len(rec.Events) > 100 {
		return progress.ErrTooLarge
	}
	return l.Log.Append(ctx, key, prev, rec)
}

func TestCheckpointIsRefusedWhenTheOutputsBeforeItWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) > 1 {
					return ok(1)
				}
				for i := range 151 {
					if err := streamer.Output(ctx, i); err != nil {
						t.Error(err)
					}
					if i == 0 {
						time.Sleep(500 * time.Millisecond) // the rest gathers while this is being stored
					}
				}
				if streamer.Checkpoint(ctx, 151) == nil {
					t.Error("the checkpoint was stored, and the outputs were not")
				}
				return nil, streamer.NewError("AGAIN", "").WithRetry(time.Second)
			}))
		}, streamer.WithLog(narrow{memlog.New()}))
		defer s.stop()
		s.submit("x", "r1", ``)
		outputs := 0
		for _, e := range s.events("r1") {
			switch e.Kind {
			case progress.Output:
				outputs = e.Index + 1
			case progress.Started:
				require.LessOrEqual(t, e.Index, outputs, "an attempt goes on from an output that no viewer has")
			}
		}
	})
}

func TestRequestIsNotCompletedWithoutAnOutputThatItMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Int32
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for i := range 10 {
					if streamer.Output(ctx, i) != nil {
						refused.Add(1)
					}
					time.Sleep(time.Second)
				}
				return ok("10 outputs")
			}), streamer.WithTimeout(7500*time.Millisecond))
		})
		defer s.stop()
		end := s.ends("x", "r1", ``)
		require.Positive(t, refused.Load())
		require.NotEqual(t, progress.Completed, end.Kind, "%d of 10 outputs are missing", refused.Load())
	})
}

// keeping keeps the records of outputs that it was given, fails the first append of them, and
// compares them later.
type keeping struct {
	*memlog.Log
	mu     sync.Mutex
	rec    *progress.Record
	events []*progress.Event
}

func (l *keeping) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rec == nil && len(rec.Events) > 0 && rec.Events[0].Kind == progress.Output {
		l.rec, l.events = rec, slices.Clone(rec.Events)
		return progress.ErrUnavailable
	}
	return l.Log.Append(ctx, key, prev, rec)
}

func TestRecordIsNotChangedAfterItWasHandedToTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keeping{Log: memlog.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				_ = streamer.Output(ctx, 1)
				<-ctx.Done()
				return nil, ctx.Err()
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait() // the append has failed, and will be tried again
		_, err := s.Cancel(t.Context(), alice, "r1", "")
		require.NoError(t, err)
		require.Equal(t, "accepted started canceling output canceled", kinds(s.events("r1")))
		log.mu.Lock()
		defer log.mu.Unlock()
		for i, e := range log.events {
			require.Same(t, e, log.rec.Events[i])
			require.EqualValues(t, 3, e.Seq)
		}
	})
}
