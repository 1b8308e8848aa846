package streamer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
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

// stepwise runs f as a handler that does a step a second, and look half a second after each.
func stepwise(t *testing.T, steps []func(ctx context.Context, p streamer.Reporter), look func(step int, page progress.Page)) {
	s := serve(t, func(m *streamer.Mux) {
		m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
			for _, step := range steps {
				step(ctx, p)
				time.Sleep(time.Second)
			}
			return ok(1)
		}))
	})
	defer s.stop()
	s.submit("x", "r1", ``)
	time.Sleep(500 * time.Millisecond)
	for i := range steps {
		look(i, s.page("r1"))
		time.Sleep(time.Second)
	}
}

func TestPercentageStaysWithinBoundsAndNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := []struct{ reported, shown float64 }{
			{math.NaN(), 0}, {-1, 0}, {math.Inf(-1), 0}, {math.Copysign(0, -1), 0}, {math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
			{45.5, 45.5}, {10, 45.5}, {-1, 45.5}, {math.NaN(), 45.5}, {math.Inf(-1), 45.5}, {99.9, 99.9}, {101, 100}, {math.Inf(1), 100}, {3, 100},
		}
		var steps []func(context.Context, streamer.Reporter)
		for i, row := range rows {
			steps = append(steps, func(_ context.Context, p streamer.Reporter) {
				if err := p.Report(row.reported, fmt.Sprint("report ", i)); err != nil {
					t.Error(err)
				}
			})
		}
		stepwise(t, steps, func(step int, page progress.Page) {
			require.Equal(t, rows[step].shown, page.Progress.Percentage, "after %v", rows[step].reported)
			require.Equal(t, fmt.Sprint("report ", step), page.Progress.Message, "the message is shown all the same")
		})
	})
}

func TestProgressMetadataComesWithThisAndLaterReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := func(p streamer.Reporter, key string, value any) {
			if err := p.SetMetadata(key, value); err != nil {
				t.Error(err)
			}
		}
		steps := []func(context.Context, streamer.Reporter){
			func(_ context.Context, p streamer.Reporter) { set(p, "a", 1) },
			func(_ context.Context, p streamer.Reporter) { _ = p.Report(1, "") },
			func(_ context.Context, p streamer.Reporter) { set(p, "b", "<&>") },
			func(_ context.Context, p streamer.Reporter) { set(p, "a", []int{2}) },
			func(_ context.Context, p streamer.Reporter) { _ = p.Report(2, "") },
		}
		want := []string{``, `{"a":1}`, `{"a":1,"b":"<&>"}`, `{"a":[2],"b":"<&>"}`, `{"a":[2],"b":"<&>"}`}
		stepwise(t, steps, func(step int, page progress.Page) {
			if want[step] == "" {
				require.Nil(t, page.Progress, "nothing was reported yet")
				return
			}
			require.Equal(t, want[step], string(page.Progress.Metadata), "step %d", step)
		})
	})
}

func TestProgressMetadataIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kib := strings.Repeat("a", 1022) // with quotes
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("entries", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				for i := range 64 {
					if err := p.SetMetadata(fmt.Sprint(i), i); err != nil {
						t.Error(err)
					}
				}
				err := p.SetMetadata(strings.Repeat("k", 1000), 64)
				if err == nil || !strings.Contains(err.Error(), "64 entries already") || len(err.Error()) > 200 {
					t.Errorf("one more: %v", err)
				}
				if err := p.SetMetadata("0", "replaced"); err != nil {
					t.Error(err)
				}
				return ok(1)
			}))
			m.Handle("bytes", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				for i := range 15 {
					if err := p.SetMetadata(fmt.Sprint(i), kib); err != nil {
						t.Error(err)
					}
				}
				if err := p.SetMetadata("x", kib); err == nil || !strings.Contains(err.Error(), "at most 16384") {
					t.Errorf("one more: %v", err)
				}
				if err := p.SetMetadata("0", 1); err != nil {
					t.Error(err)
				}
				if err := p.SetMetadata("x", kib); err != nil {
					t.Error("there is room again:", err)
				}
				return ok(1)
			}))
			m.Handle("broken", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				for _, v := range []any{func() {}, math.Inf(1), json.RawMessage(`{`)} {
					if err := p.SetMetadata("k", v); err == nil {
						t.Errorf("%v was taken", v)
					}
				}
				return ok(1)
			}))
		})
		defer s.stop()
		for _, action := range []string{"entries", "bytes", "broken"} {
			require.Equal(t, progress.Completed, s.ends(action, action, ``).Kind)
		}
	})
}

func TestProgressMessageIsCutOnARune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := []func(context.Context, streamer.Reporter){func(_ context.Context, p streamer.Reporter) { _ = p.Report(1, "x"+strings.Repeat("é", 5000)) }}
		stepwise(t, steps, func(_ int, page progress.Page) {
			require.Equal(t, "x"+strings.Repeat("é", 2047), page.Progress.Message)
		})
	})
}

// counting notes when progress was written.
type counting struct {
	*memlog.Log
	mu     sync.Mutex
	writes []time.Time
}

func (l *counting) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	l.note(rec.Progress)
	return l.Log.Append(ctx, key, prev, rec)
}

func (l *counting) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	l.note(p)
	return l.Log.SetProgress(ctx, key, p)
}

func (l *counting) note(p *progress.Progress) {
	if p != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.writes = append(l.writes, time.Now())
	}
}

func TestProgressIsWrittenAtOnceAndThenTenTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &counting{Log: memlog.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				for i := range 1000 {
					_ = p.Report(float64(i)/10, "")
					time.Sleep(time.Millisecond)
				}
				return ok(1)
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		began := time.Now()
		s.ends("x", "r1", ``)
		require.Equal(t, began, log.writes[0], "the first at once")
		require.GreaterOrEqual(t, len(log.writes), 10)
		require.LessOrEqual(t, len(log.writes), 12)
		for i, at := range log.writes[1 : len(log.writes)-1] {
			require.GreaterOrEqual(t, at.Sub(log.writes[i]), 100*time.Millisecond)
		}
		require.Equal(t, 99.9, s.page("r1").Progress.Percentage, "the last comes before the end")
	})
}

func TestTheEndBringsTheLastProgressAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &counting{Log: memlog.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				_ = p.Report(70, "nearly")
				time.Sleep(time.Second)
				return ok(1)
			}))
			m.Handle("silent", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				return ok(1)
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		began := time.Now()
		s.ends("x", "r1", ``)
		require.Equal(t, []time.Time{began, began.Add(time.Second)}, log.writes)
		require.Equal(t, 70., s.page("r1").Progress.Percentage)
		s.ends("silent", "r2", ``)
		require.Len(t, log.writes, 2, "where there is none, there is none")
	})
}

func TestMillionReportsFromManyGoroutinesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &counting{Log: memlog.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(_ context.Context, p streamer.Reporter) (*streamer.Result, error) {
				var all sync.WaitGroup
				for g := range 10 {
					all.Go(func() {
						for i := range 100_000 {
							_ = p.Report(float64(i)/1000, "working")
							if i%10_000 == 0 {
								_ = p.SetMetadata(fmt.Sprint(g), i)
							}
						}
					})
				}
				all.Wait()
				return ok(1)
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		s.ends("x", "r1", ``)
		require.Less(t, len(log.writes), 10)
		p := s.page("r1").Progress
		require.Equal(t, 99.999, p.Percentage)
		require.Len(t, jsonObject(t, p.Metadata), 10)
	})
}

func jsonObject(t *testing.T, data json.RawMessage) (v map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}

func TestWhatComesAfterTheReturnIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late streamer.Reporter
		var ctx context.Context
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(c context.Context, p streamer.Reporter) (*streamer.Result, error) {
				ctx, late = c, p
				_ = streamer.Checkpoint(c, "last")
				return &streamer.Result{Success: true}, p.Report(10, "last")
			}))
		})
		defer s.stop()
		s.ends("x", "r1", ``)
		before := s.page("r1")
		require.NoError(t, late.Report(99, "late"))
		require.NoError(t, late.SetMetadata("k", "late"))
		require.Error(t, streamer.Output(ctx, "late"))
		require.Error(t, streamer.Checkpoint(ctx, "late"))
		time.Sleep(time.Minute)
		require.Equal(t, before, s.page("r1"))
		require.Equal(t, "last", before.Progress.Message)
		require.Error(t, ctx.Err(), "its context has ended")
	})
}

func TestProgressOfANewAttemptStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 1 {
					_ = p.SetMetadata("k", 1)
					_ = p.Report(80, "first")
					return nil, streamer.NewError("AGAIN", "").WithRetry(time.Second)
				}
				time.Sleep(time.Second)
				_ = p.Report(5, "second")
				time.Sleep(time.Second)
				return ok(1)
			}))
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 80.0, s.page("r1").Progress.Percentage)
		time.Sleep(time.Second)
		require.Nil(t, s.page("r1").Progress, "the new attempt has none yet")
		time.Sleep(time.Second)
		p := s.page("r1").Progress
		require.Equal(t, 5.0, p.Percentage)
		require.Equal(t, 2, p.Attempt)
		require.Nil(t, p.Metadata)
	})
}

func TestLimitsOfOutputsEndTheRequestAndKeepWhatWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := streamer.WithLimits(streamer.Limits{Output: 100, Outputs: 5, OutputBytes: 300})
		var refusals atomic.Int32
		output := func(ctx context.Context, bytes int) {
			if err := streamer.Output(ctx, strings.Repeat("a", bytes-2)); err != nil {
				refusals.Add(1)
			}
		}
		s := serve(t, func(m *streamer.Mux) {
			for action, sizes := range map[string][]int{"too large": {100, 101, 10}, "too many": {9, 9, 9, 9, 9, 9, 9}, "too much": {100, 99, 100, 99, 3}} {
				m.Handle(action, doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
					for _, size := range sizes {
						output(ctx, size)
					}
					return ok("all is well")
				}))
			}
			m.Handle("to the brim", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for _, size := range []int{100, 100, 80, 10, 10} {
					if err := streamer.Output(ctx, size); err != nil {
						return nil, err
					}
				}
				return ok(1)
			}))
		}, limits)
		defer s.stop()
		for action, want := range map[string]struct {
			outputs, refused int
			says             string
		}{
			"too large": {1, 2, "101 bytes, at most 100"}, "too many": {5, 2, "more than 5 outputs"}, "too much": {3, 2, "more than 300 bytes"},
		} {
			refusals.Store(0)
			all := s.events(s.submit(action, "", ``).ID)
			require.Equal(t, "accepted started"+strings.Repeat(" output", want.outputs)+" failed", kinds(all), action)
			end := all[len(all)-1]
			require.Equal(t, streamer.ErrCodePayloadTooLarge, end.Error.Code, action)
			require.Contains(t, end.Error.Message, want.says)
			require.EqualValues(t, want.refused, refusals.Load(), "%s: nothing is taken after it", action)
		}
		require.Equal(t, progress.Completed, s.ends("to the brim", "r1", ``).Kind)
	})
}

func TestOutputThatCanNotBeEncodedIsAnErrorToTheHandlerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for _, v := range []any{math.NaN(), func() {}, json.RawMessage(`{"a"`)} {
					if streamer.Output(ctx, v) == nil || streamer.Checkpoint(ctx, v) == nil {
						t.Errorf("%v was taken", v)
					}
				}
				return &streamer.Result{Success: true}, streamer.Output(ctx, "fine")
			}))
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started output completed", kinds(s.events("r1")))
	})
}
