package streamer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/fault"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// within shuts a router down and returns what Shutdown and Run said, and how long it took.
func (s *service) within(d time.Duration) (took time.Duration, shutdown, run error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	began := time.Now()
	shutdown = s.Shutdown(ctx)
	run = <-s.ran
	return time.Since(began), shutdown, run
}

func TestShutdownReturnsInTimeAndSaysHowManyHandlersDidNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		stubborn := doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
			<-free
			return ok(1)
		})
		s := serve(t, func(m *streamer.Mux) { m.Handle("stubborn", stubborn) })
		for range 3 {
			s.submit("stubborn", "", ``)
		}
		s.submit("stubborn", "r1", ``)
		synctest.Wait()
		took, err, _ := s.within(20 * time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "streamer: Shutdown: 4 handlers have not returned")
		require.LessOrEqual(t, took, 20*time.Second)
		require.Equal(t, progress.Retrying, s.state("r1").Phase, "it was handed back before")
		require.Zero(t, s.state("r1").Used)
		close(free)
		synctest.Wait()
		require.NoError(t, s.Shutdown(t.Context()), "by now nothing runs any more")
		require.Equal(t, progress.Retrying, s.state("r1").Phase, "what it returned is nobody's")
	})
}

func TestShutdownWaitsForWhatFinishesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(10 * time.Second)
				if ctx.Err() != nil {
					t.Error("it was told to stop")
				}
				return ok(1)
			}))
		})
		s.submit("x", "r1", ``)
		synctest.Wait()
		took, err, run := s.within(time.Minute)
		require.NoError(t, err)
		require.NoError(t, run)
		require.Equal(t, 10*time.Second, took, "and no longer")
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}

func TestDrainTakesOnNothingNewAndLetsViewersWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(10 * time.Second)
				return &streamer.Result{Success: true}, streamer.Output(ctx, 1)
			}))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
		}, append(stores, streamer.WithConcurrency(1))...)
		s.submit("x", "r1", ``)
		s.submit("x", "r2", ``)
		synctest.Wait()
		select {
		case <-s.Draining():
			t.Fatal("nobody asked for a drain")
		default:
		}
		seen := make(chan string, 1)
		go func() { seen <- kinds(s.events("r1")) }()
		go s.within(time.Minute)
		<-s.Draining()
		synctest.Wait()
		require.ErrorIs(t, s.Ready(t.Context()), streamer.ErrShutdown)
		for _, action := range []string{"x", "short"} {
			requireUnavailable(t, s.refused(alice, request(action, "", ``)))
		}
		require.Equal(t, "accepted started output completed", <-seen)
		_, err := s.Cancel(t.Context(), alice, "r1", "")
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, progress.Accepted, s.state("r2").Phase, "what waited is left to others")

		other := serve(t, func(m *streamer.Mux) { m.Handle("x", returns("other")) }, stores...)
		defer other.stop()
		require.Equal(t, `"other"`, string(other.end("r2").Data))
		require.Equal(t, "accepted started completed", kinds(s.events("r2")), "the old one still shows it")
	})
}

func TestWhatADrainHandsBackGoesOnElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		setup := func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				var i int
				if _, err := streamer.LastCheckpoint(ctx, &i); err != nil {
					return nil, err
				}
				for ; i < 60; i++ {
					if err := streamer.Output(ctx, i); err != nil {
						return nil, err
					}
					if err := streamer.Checkpoint(ctx, i+1); err != nil {
						return nil, err
					}
					time.Sleep(time.Second)
				}
				return ok(streamer.Attempt(ctx))
			}), streamer.WithAttempts(1))
		}
		first := serve(t, setup, stores...)
		first.submit("x", "r1", ``)
		for range 3 {
			time.Sleep(5 * time.Second)
			_, err, run := first.within(10 * time.Second)
			require.NoError(t, err)
			require.NoError(t, run)
			require.EqualValues(t, 1, first.Stats().Returned)
			first = serve(t, setup, stores...)
		}
		defer first.stop()
		next := 0
		for _, e := range first.events("r1") {
			switch e.Kind {
			case progress.Started: // one that was told to stop behind its last output has no checkpoint there
				require.GreaterOrEqual(t, e.Index, next-1)
				require.LessOrEqual(t, e.Index, next)
				next = e.Index
			case progress.Output:
				require.Equal(t, next, e.Index)
				next++
			case progress.Retrying:
				require.Equal(t, progress.ReasonShutdown, e.Reason)
			}
		}
		require.Equal(t, 60, next)
		require.Equal(t, `4`, string(first.end("r1").Data), "a drain uses no attempt, though each has its number")
	})
}

func TestHandlerThatSucceedsWhenItIsExpelledHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				return ok("just in time")
			}))
		})
		s.submit("x", "r1", ``)
		synctest.Wait()
		_, err, _ := s.within(10 * time.Second)
		require.NoError(t, err)
		require.Equal(t, `"just in time"`, string(s.end("r1").Data))
	})
}

func TestShortWorkThatADrainInterruptsIsRefusedAndNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("waits", waits(), streamer.WithEstimate(0), streamer.WithTimeout(time.Hour))
			m.Handle("stubborn", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				<-free
				return ok(1)
			}), streamer.WithEstimate(0), streamer.WithTimeout(time.Hour))
			m.Handle("quick", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(5 * time.Second)
				return ok(1)
			}), streamer.WithEstimate(0))
		})
		refused := make(chan error, 2)
		for _, action := range []string{"waits", "stubborn"} {
			go func() { refused <- s.refused(alice, request(action, action, ``)) }()
		}
		answered := make(chan *streamer.Receipt, 1)
		go func() { answered <- s.submit("quick", "quick", ``) }()
		synctest.Wait()
		_, err, _ := s.within(10 * time.Second)
		require.ErrorContains(t, err, "1 handlers have not returned")
		require.Equal(t, progress.Completed, (<-answered).End.Kind)
		for range 2 {
			requireUnavailable(t, <-refused)
		}
		for _, id := range []string{"waits", "stubborn"} {
			_, err := s.Attach(t.Context(), alice, id)
			require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		}
		close(free)
	})
}

func TestEndOfRunsContextDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		for action, want := range map[string]struct {
			phase progress.Kind
			took  time.Duration
			says  string
		}{
			"finishes": {progress.Completed, 4 * time.Second, ""},
			"listens":  {progress.Retrying, 8 * time.Second, ""}, // 10 s without what is left to hand back
			"stubborn": {progress.Retrying, 10 * time.Second, "1 handlers have not returned"},
		} {
			s := gateway(t, func(m *streamer.Mux) {
				m.Handle("finishes", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
					time.Sleep(4 * time.Second)
					return ok(1)
				}))
				m.Handle("listens", waits())
				m.Handle("stubborn", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
					<-free
					return ok(1)
				}))
			})
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- s.Run(ctx) }()
			s.submit(action, "r1", ``)
			synctest.Wait()
			cancel()
			began := time.Now()
			err := <-ran
			if want.says == "" {
				require.NoError(t, err, action)
			} else {
				require.ErrorContains(t, err, want.says, action)
			}
			require.Equal(t, want.took, time.Since(began), action)
			require.Equal(t, want.phase, s.state("r1").Phase, action)
			requireUnavailable(t, s.refused(alice, request("finishes", "", ``)))
		}
		close(free)
	})
}

func TestRunRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(*streamer.Mux) {})
		require.EqualError(t, s.Run(t.Context()), "streamer: Run was called before")
		s.stop()
		require.EqualError(t, s.Run(t.Context()), "streamer: Run after Shutdown")
	})
}

func TestShutdownWithoutRunAndTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
		s.submit("x", "r1", ``)
		for range 2 {
			require.NoError(t, s.Shutdown(t.Context()))
		}
		require.EqualError(t, s.Run(t.Context()), "streamer: Run after Shutdown")
		require.Equal(t, progress.Accepted, s.state("r1").Phase)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, s.Shutdown(ended), "nothing runs, so there is nothing to wait for")
	})
}

func TestShutdownWithoutADeadlineWaitsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", waits()) })
		s.submit("x", "r1", ``)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		began := time.Now()
		require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
		require.Equal(t, time.Hour, time.Since(began))
		require.NoError(t, <-s.ran)
		synctest.Wait()
		require.Equal(t, progress.Retrying, s.state("r1").Phase, "it was told to stop then")
	})
}

func TestRunRefusesASharedQueueWithALogOfThisProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := fault.NewQueue(memqueue.New(), 1, time.Second) // hides that it is in memory
		err := streamer.NewRouter(streamer.WithQueue(shared)).Run(t.Context())
		require.ErrorContains(t, err, "other processes share the queue but not the log")
		require.ErrorContains(t, err, "WithLog")
		require.ErrorContains(t, err, "WithLocalLog")

		for name, opts := range map[string][]streamer.Option{
			"told to":            {streamer.WithQueue(shared), streamer.WithLocalLog()},
			"both shared":        {streamer.WithQueue(shared), streamer.WithLog(fault.NewLog(memlog.New(), 1, time.Second))},
			"only the log is":    {streamer.WithLog(fault.NewLog(memlog.New(), 1, time.Second))},
			"neither, by choice": sharedStores(),
		} {
			s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, opts...)
			require.Equal(t, progress.Completed, s.ends("x", "r1", ``).Kind, name)
			s.stop()
		}
	})
}

func TestShutdownSaysThatItIsTheLogItWaitsFor(t *testing.T) {
	outage(t, func(t *testing.T, err error, _ *fault.Log) {
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "the log could not be told")
	})
}

func TestNothingGoesOnAfterRunThoughTheLogIsDown(t *testing.T) {
	outage(t, func(t *testing.T, _ error, log *fault.Log) {
		time.Sleep(time.Minute)
		before := log.Unavailable.Count()
		time.Sleep(time.Hour)
		require.Equal(t, before, log.Unavailable.Count(), "calls to the log")
	})
}

// outage has the log go down while a handler runs, and shuts down.
func outage(t *testing.T, check func(t *testing.T, shutdown error, log *fault.Log)) {
	synctest.Test(t, func(t *testing.T) {
		log := fault.NewLog(memlog.New(), 1, time.Second)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				return ok(1)
			}))
		}, streamer.WithLog(log))
		s.submit("x", "r1", ``)
		synctest.Wait()
		log.Unavailable.Set(1)
		defer time.Sleep(time.Minute)
		defer log.Unavailable.Set(0)
		_, err, _ := s.within(10 * time.Second)
		check(t, err, log)
	})
}
