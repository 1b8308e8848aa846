package queuetest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// recorder is a testing.TB whose failures are looked at instead of reported.
type recorder struct {
	testing.TB
	ctx    context.Context
	mu     sync.Mutex
	failed bool
	log    []string
}

func (r *recorder) record(failed bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.log = append(r.log, text)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Context() context.Context          { return r.ctx }
func (r *recorder) Helper()                           {}
func (r *recorder) Logf(format string, args ...any)   { r.record(false, fmt.Sprintf(format, args...)) }
func (r *recorder) Error(args ...any)                 { r.record(true, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.record(true, fmt.Sprintf(format, args...)) }
func (r *recorder) FailNow()                          { r.record(true, "FailNow"); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)                 { r.record(true, fmt.Sprint(args...)); runtime.Goexit() }

func (r *recorder) Fatalf(format string, args ...any) {
	r.record(true, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// outcome runs a case in a bubble and returns whether it failed, and what it said.
func outcome(t *testing.T, c testCase, h Harness) (failed bool, log string) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := &recorder{TB: t, ctx: ctx}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.check(r, h)
		}()
		<-done
		cancel()
		time.Sleep(time.Hour) // for what sleeps in a broken queue
		failed, log = r.failed, strings.Join(r.log, "\n")
	})
	return failed, log
}

func harness(broken breaker) Harness {
	return Harness{
		New: func(tb testing.TB, lease time.Duration) queue.Queue {
			return broken(tb, memqueue.New(memqueue.WithLease(lease)))
		},
		Scoped: func(tb testing.TB, max int) queue.Queue {
			return broken(tb, memqueue.New(memqueue.WithMaxPerScope(max)))
		},
		Fair:               true,
		FencesStaleHolders: true,
		Tolerance:          10 * time.Millisecond,
	}.withDefaults()
}

func TestEachCaseNoticesWhatItIsAbout(t *testing.T) {
	t.Parallel()
	breakers := breakers()
	for _, c := range cases() {
		if c.name == "tickets survive a crash" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			broken := breakers[c.name]
			if broken == nil {
				t.Fatal("nothing shows that this case can fail")
			}
			failed, log := outcome(t, c, harness(broken))
			if !failed {
				t.Fatal("the case passed with a broken queue")
			}
			if !strings.Contains(log, c.must) {
				t.Errorf("the failure does not say what a queue must do:\n%s", log)
			}
			t.Log(log)
		})
	}
}

func TestTheCrashCaseNoticesWhatIsLost(t *testing.T) {
	t.Parallel()
	whole := func(_ testing.TB, q queue.Queue) queue.Queue { return q }
	for _, c := range cases() {
		if c.name != "tickets survive a crash" {
			continue
		}
		h := harness(whole)
		h.Reopen = func(_ testing.TB, q queue.Queue) queue.Queue { return q }
		if failed, log := outcome(t, c, h); failed {
			t.Errorf("failed with a queue that keeps all:\n%s", log)
		}
		h.Reopen = func(tb testing.TB, _ queue.Queue) queue.Queue { return h.New(tb, time.Second) }
		if failed, _ := outcome(t, c, h); !failed {
			t.Error("passed with a queue that loses all")
		}
	}
}

func TestAQueueThatDoesNotFenceCanConform(t *testing.T) {
	t.Parallel()
	unfenced := func(_ testing.TB, q queue.Queue) queue.Queue {
		var latest latest
		return &broken{Queue: q, receive: latest.watch(q),
			extend: func(ctx context.Context, d queue.Delivery) error { _ = latest.of(d).Extend(ctx); return nil },
			ack:    func(ctx context.Context, d queue.Delivery) error { return latest.of(d).Ack(ctx) },
			retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				return latest.of(d).Retry(ctx, delay)
			},
		}
	}
	h := harness(unfenced)
	h.FencesStaleHolders = false
	for _, c := range cases() {
		if !c.appliesTo(h) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if failed, log := outcome(t, c, h); failed {
				t.Error(log)
			}
		})
	}
}
