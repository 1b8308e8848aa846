package sse_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	events "github.com/pay-theory/streamer/v2/internal/sse"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

func TestAStreamShowsEventsInOrderAndTheLastProgressBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		st := s.stream("/requests/r1/events")
		require.Equal(t, "no", st.resp.Header.Get("X-Accel-Buffering"))
		require.Contains(t, st.resp.Header.Get("Cache-Control"), "no-transform")
		require.Empty(t, st.resp.Header.Get("Content-Encoding"))
		epoch := st.expect("attached", "r1").Epoch
		require.Equal(t, epoch+":0", st.last)
		require.Equal(t, "queued", st.expect("status", "r1").Status)
		require.Equal(t, epoch+":1", st.last)
		require.Equal(t, "running", st.expect("status", "r1").Status)
		s.reports("r1", 0)
		require.Equal(t, 0.0, st.expect("progress", "r1").Percentage)
		require.Equal(t, epoch+":2", st.last, "progress moves no cursor")
		s.puts("r1", "a")
		require.Equal(t, `"a"`, string(st.expect("output", "r1").Data))
		for i := range 1000 {
			s.reports("r1", float64(i)/20)
		}
		s.finishes("r1")
		var shown []float64
		_, m, err := st.read()
		for ; err == nil && m.Type == wire.TypeProgress; _, m, err = st.read() {
			shown = append(shown, m.Percentage)
		}
		require.NoError(t, err)
		require.Less(t, len(shown), 5, "progress is merged")
		require.Equal(t, 999.0/20, shown[len(shown)-1])
		require.Equal(t, "complete", m.Type)
		require.Equal(t, epoch+":4", st.last)
		st.ends()
	})
}

func TestTheFirstBytesComeAtOnceAndThenSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		began := time.Now()
		resp := s.open("GET", "/requests/r1/events", "")
		defer resp.Body.Close()
		r := events.NewReader(resp.Body, 1000)
		e, err := r.Next()
		require.NoError(t, err)
		require.Nil(t, e.Data)
		e, err = r.Next()
		require.NoError(t, err)
		require.GreaterOrEqual(t, e.Retry, time.Second)
		require.LessOrEqual(t, e.Retry, 3*time.Second)
		require.Zero(t, time.Since(began))
		for range 3 { // attached, queued, running
			_, err = r.Next()
			require.NoError(t, err)
		}
		for i := 1; i <= 3; i++ {
			e, err = r.Next()
			require.NoError(t, err)
			require.Nil(t, e.Data)
			e, err = r.Next()
			require.NoError(t, err)
			require.Equal(t, "ping", e.Name)
			require.Equal(t, time.Duration(i)*15*time.Second, time.Since(began))
		}
	})
}

func TestAStreamGoesOnFromItsCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		for i := range 3 {
			s.puts("r1", i)
		}
		synctest.Wait()
		epoch := s.call("GET", "/requests/r1", "").members()["epoch"].(string)
		for _, path := range []string{"/requests/r1/events?after=4", "/requests/r1/events?after=4&epoch=" + epoch, "/events?r=r1:" + epoch + ":4", "/events?r=r1::4"} {
			st := s.stream(path)
			require.EqualValues(t, 4, st.expect("attached", "r1").After)
			require.EqualValues(t, 5, st.expect("output", "r1").Seq)
			st.resp.Body.Close()
		}
		// The header is what the browser saw last, the query what the page said first.
		st := s.stream("/requests/r1/events?after=1", "Last-Event-ID", epoch+":4")
		st.expect("attached", "r1")
		require.EqualValues(t, 5, st.expect("output", "r1").Seq)
		st = s.stream("/requests/r1/events?after=4", "Last-Event-ID", "")
		st.expect("attached", "r1")
		require.EqualValues(t, 5, st.expect("output", "r1").Seq)
	})
}

func TestACursorThatCanNotBeHonouredIsToldAsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.puts("r1", 1)
		synctest.Wait()
		for query, reason := range map[string]string{"after=2&epoch=other": "recreated", "after=99": "ahead"} {
			st := s.stream("/requests/r1/events?" + query)
			gap := st.expect("gap", "r1")
			require.Equal(t, reason, gap.Reason)
			require.Equal(t, gap.Epoch+":0", st.last)
			require.EqualValues(t, 1, st.expect("status", "r1").Seq)
			st.resp.Body.Close()
		}
		require.EqualValues(t, 2, s.handler.Stats().Gaps)
	})
}

func TestAnEndedStreamIsAnsweredWith204(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.finishes("r1")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		st.expect("complete", "r1")
		last := st.last
		st.ends()
		require.Empty(t, s.call("GET", "/requests/r1/events", "", "Last-Event-ID", last).is(204).text)
		s.call("GET", "/requests/r1/events?after=3", "").is(204)
		s.call("GET", "/events?r=r1::3&r=gone", "").is(204)
		s.call("GET", "/events?r=gone", "").problem(404, "NOT_FOUND")
		s.call("HEAD", "/requests/r1/events", "").is(200)
		m := s.call("GET", "/requests/r1/events?after=3", "", "Accept", "application/json").is(200).members()
		require.Equal(t, map[string]any{"done": true, "last": 3.0, "events": m["events"]}, m)
	})
}

func TestMalformedCursorsAreRefused(t *testing.T) {
	s := start(t)
	s.submits("r1")
	for _, query := range []string{"after=-1", "after=x", "after=1.5", "after=9007199254740992", "after=99999999999999999999", "after=1&after=2", "epoch=a%20b", "epoch=" + strings.Repeat("e", 65), "after=%31%0A", "epoch=a&epoch=b", "%zz"} {
		s.call("GET", "/requests/r1/events?"+query, "").problem(400, "VALIDATION_ERROR")
	}
	for _, id := range []string{"4", ":", "e:x", "e:-1", "a b:1", "e:1:2", "r1:e:1", "e:99999999999999999999", strings.Repeat("x", 5000)} {
		s.call("GET", "/requests/r1/events", "", "Last-Event-ID", id).problem(400, "VALIDATION_ERROR")
	}
	s.call("GET", "/requests/r1/events", "", "Last-Event-ID", "e:1", "Last-Event-ID", "e:2").problem(400, "VALIDATION_ERROR")
	many := "/events?r=x"
	for i := range 64 {
		many += fmt.Sprint("&r=x", i)
	}
	for _, path := range []string{"/events", "/events?r=", "/events?r=a%2Fb", "/events?r=r1&r=r1:e:3", "/events?r=r1:e:x", "/events?r=r1:e:1:2", many} {
		s.call("GET", path, "").problem(400, "VALIDATION_ERROR")
	}
	s.stream("/events?r=r1", "Last-Event-ID", "r1").expect("attached", "r1")
}

func TestManyRequestsShareOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("a")
		s.submits("b")
		synctest.Wait()
		st := s.stream("/events?r=a&r=b&r=c")
		a := st.expect("attached", "a").Epoch
		b := st.expect("attached", "b").Epoch
		require.Equal(t, "a:"+a+":0,b:"+b+":0,c::0", st.last)
		refused := st.expect("error", "c")
		require.Zero(t, refused.Seq)
		require.Equal(t, "NOT_FOUND", refused.Error.Code)
		require.Equal(t, 2, s.handler.Stats().Attached, "who can't be followed is not")
		for _, id := range []string{"a", "a", "b", "b"} {
			st.expect("status", id)
		}
		s.puts("b", 1)
		st.expect("output", "b")
		require.Equal(t, "a:"+a+":2,b:"+b+":3,c::0", st.last)
		st.resp.Body.Close()

		s.finishes("a")
		again := s.stream("/events?r=a&r=b&r=c", "Last-Event-ID", st.last)
		again.expect("attached", "a")
		again.expect("attached", "b")
		again.expect("error", "c")
		again.expect("complete", "a")
		s.finishes("b")
		again.expect("complete", "b")
		require.Equal(t, "a:"+a+":3,b:"+b+":4,c::0", again.last)
		again.ends()
		s.call("GET", "/events?r=a&r=b", "", "Last-Event-ID", again.last).is(204)
	})
}

func TestASubmitCanBeAnsweredByItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		resp := s.open("POST", "/requests", `{"action":"work","id":"r1"}`, "Accept", "text/event-stream")
		require.Equal(t, "requests/r1", resp.Header.Get("Location"))
		st := s.streaming(resp)
		epoch := st.expect("acknowledgment", "r1").Epoch
		require.Equal(t, epoch+":1", st.last)
		require.EqualValues(t, 2, st.expect("status", "r1").Seq)
		s.finishes("r1")
		st.expect("complete", "r1")
		st.ends()

		short := s.streaming(s.open("POST", "/requests", `{"action":"refuse","id":"r2"}`, "Accept", "application/json;q=0.5, text/event-stream"))
		require.Equal(t, "OUT_OF_PAPER", short.expect("error", "r2").Error.Code)
		short.ends()
		s.call("POST", "/requests", `{"action":"nothing"}`, "Accept", "text/event-stream").problem(404, "INVALID_ACTION")
	})
}

func TestPagesHaveWhatAStreamWouldShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.puts("r1", "a")
		synctest.Wait()
		types := func(a *answer) (list []string) {
			for _, e := range a.is(200).members()["events"].([]any) {
				list = append(list, e.(map[string]any)["type"].(string))
			}
			return list
		}
		json := []string{"Accept", "application/json"}
		a := s.call("GET", "/requests/r1/events", "", json...)
		require.Equal(t, []string{"attached", "status", "status", "output"}, types(a))
		require.Equal(t, false, a.members()["done"])
		require.Equal(t, 3.0, a.members()["last"])

		wait := append(json, "Prefer", "wait=20")
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { s.puts("r1", "b") })
		a = s.call("GET", "/requests/r1/events?after=3", "", wait...)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, []string{"attached", "output"}, types(a))

		etag := a.Header.Get("ETag")
		known := append(wait, "If-None-Match", etag)
		began = time.Now()
		s.call("GET", "/requests/r1/events?after=4", "", known...).is(304)
		require.Equal(t, 20*time.Second, time.Since(began))
		time.AfterFunc(time.Second, func() { s.reports("r1", 50) })
		a = s.call("GET", "/requests/r1/events?after=4", "", known...)
		require.Equal(t, []string{"attached", "progress"}, types(a))
		require.NotEqual(t, etag, a.Header.Get("ETag"))

		s.finishes("r1")
		synctest.Wait()
		a = s.call("GET", "/events?r=r1::4&r=gone", "", wait...)
		require.Equal(t, []string{"attached", "error", "progress", "complete"}, types(a))
		require.Equal(t, true, a.members()["done"])
	})
}

func TestAPageIsAnsweredAtOnceWhenItHasSomethingToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		synctest.Wait()
		began := time.Now()
		a := s.call("GET", "/events?r=r1::2&r=gone", "", "Accept", "application/json", "Prefer", "wait=20").is(200)
		require.Contains(t, a.text, "NOT_FOUND")
		etag := a.Header.Get("ETag")
		a = s.call("GET", "/events?r=r1::1", "", "Accept", "application/json", "Prefer", "wait=20", "If-None-Match", etag).is(200)
		require.Contains(t, a.text, `"seq":2`, "what the client has not seen is news, whatever its ETag")
		require.Zero(t, time.Since(began))
	})
}

func TestAPageOfManyRequestsIsBounded(t *testing.T) {
	s := start(t)
	query := ""
	for i := range 10 {
		id := fmt.Sprint("r", i)
		query += "&r=" + id
		s.submits(id)
		s.does(id, func(ctx context.Context, _ streamer.Reporter) error {
			for range 60 {
				if err := streamer.Output(ctx, strings.Repeat("x", 2000)); err != nil {
					return err
				}
			}
			return nil
		})
		s.finishes(id)
	}
	a := s.call("GET", "/events?"+query[1:], "", "Accept", "application/json", "Prefer", "wait=1").is(200)
	require.Less(t, len(a.text), 512<<10)
	require.Equal(t, false, a.members()["done"])
}

func TestALongLogIsPagedThrough(t *testing.T) {
	s := start(t)
	s.submits("r1")
	s.does("r1", func(ctx context.Context, _ streamer.Reporter) error {
		for i := range 500 {
			if err := streamer.Output(ctx, strings.Repeat("x", 2000)+fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	s.finishes("r1")
	after, calls := 0, 0
	for done := false; !done; calls++ {
		a := s.call("GET", fmt.Sprint("/requests/r1/events?after=", after), "", "Accept", "application/json", "Prefer", "wait=5").is(200)
		require.LessOrEqual(t, len(a.text), 512<<10)
		m := a.members()
		for _, e := range m["events"].([]any) {
			if seq, ok := e.(map[string]any)["seq"]; ok {
				require.EqualValues(t, after+1, seq)
				after++
			}
		}
		done = m["done"].(bool)
	}
	require.Equal(t, 503, after)
	require.Greater(t, calls, 2)
}

func TestNoTextOfAnyoneBreaksAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		evil := "a\r\n\r\nevent: complete\ndata: {}\n\n\x00\u2028\u2029\u0085\uFEFF\xff"
		s.submits("r1")
		s.does("r1", func(ctx context.Context, p streamer.Reporter) error {
			p.SetMetadata(evil, evil)
			p.Report(1, evil)
			if err := streamer.Output(ctx, evil); err != nil {
				return err
			}
			return streamer.NewError("ODD", evil).WithDetail(evil, evil)
		})
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		for {
			_, m, err := st.read()
			require.NoError(t, err)
			if m.Type == wire.TypeError {
				require.EqualValues(t, 4, m.Seq)
				require.Equal(t, strings.ToValidUTF8(evil, "\uFFFD"), m.Error.Message)
				break
			}
			require.Contains(t, []string{"progress", "output"}, m.Type)
		}
		st.ends()
	})
}

// TestAnEventSourceThatIsCutAnywhereSeesEveryEventOnce connects again with the last id, as
// browsers do.
func TestAnEventSourceThatIsCutAnywhereSeesEveryEventOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := setup{client: func(tr *http.Transport) {
		tr.DisableKeepAlives = true
		tr.DialContext = cutproxy.Dial(cutproxy.DialFunc(tr.DialContext), func(int) cutproxy.Plan {
			return cutproxy.Plan{ToClient: 300 + random.IntN(6000)}
		})
	}}.start(t)
	const outputs = 300
	for _, id := range []string{"a", "b"} {
		s.submits(id)
		s.does(id, func(ctx context.Context, _ streamer.Reporter) error {
			for i := range outputs {
				if err := streamer.Output(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
		s.finishes(id)
	}
	for path, requests := range map[string]int{"/requests/a/events": 1, "/events?r=a&r=b": 2} {
		seen := map[string]uint64{}
		last, cuts := "", 0
		for s.resumes(path, &last, seen) {
			cuts++
		}
		require.Len(t, seen, requests)
		for id, seq := range seen {
			require.EqualValues(t, outputs+3, seq, id)
		}
		require.GreaterOrEqual(t, cuts, 5)
	}
}

// resumes follows a stream until it breaks. It returns false when there is nothing more.
func (s *service) resumes(path string, last *string, seen map[string]uint64) bool {
	s.t.Helper()
	resp, err := s.try(context.Background(), "GET", path, "", "Last-Event-ID", *last)
	if err != nil {
		return true
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return false
	}
	require.Equal(s.t, 200, resp.StatusCode)
	r := events.NewReader(resp.Body, 1<<20)
	for {
		e, err := r.Next()
		if err != nil {
			return true
		}
		if e.Data == nil {
			continue
		}
		*last = e.ID
		m, err := wire.DecodeOutbound(e.Data)
		require.NoError(s.t, err)
		if m.Seq > 0 {
			require.Equal(s.t, seen[m.RequestID]+1, m.Seq, m.RequestID)
			seen[m.RequestID] = m.Seq
		}
	}
}
