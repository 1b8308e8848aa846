package streamer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestSubmitWithoutAnIDMakesAUUIDv7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("whoami", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				return ok(req.ID)
			}))
		})
		defer s.stop()
		first, second := s.submit("whoami", "", ``), s.submit("whoami", "", ``)
		id, err := uuid.Parse(first.ID)
		require.NoError(t, err)
		require.EqualValues(t, 7, id.Version())
		require.NotEqual(t, first.ID, second.ID)
		require.Equal(t, fmt.Sprintf("%q", first.ID), string(s.end(first.ID).Data), "the handler sees the id that was made")
	})
}

func TestIDsOutsideTheirAlphabetAreRefused(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	for name, id := range map[string]string{
		"129 long": strings.Repeat("a", 129), "NUL": "a\x00b", "newline": "a\nb", "DEL": "a\x7f", "space": "a b", "slash": "a/b",
		"wildcard": "*", "wildcard for the rest": ">", "letter beyond ASCII": "é", "no UTF-8": "\xff", "percent": "%41", "plus": "a+b",
	} {
		err := s.refused(alice, request("x", id, ``))
		require.Equal(t, streamer.ErrCodeValidation, err.Code, name)
		require.Contains(t, err.Message, "1 to 128 of A-Z a-z 0-9 . _ ~ -", name)
	}
	for _, id := range []string{"a", strings.Repeat("a", 128), "AZaz09._~-", ".."} {
		require.Equal(t, id, s.submit("x", id, ``).ID)
	}
}

func TestUnknownAndMissingActionsAreRefused(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	for _, action := range []string{"", "X", "x ", "unknown", "a\xff", strings.Repeat("é", 10_000)} {
		err := s.refused(alice, request(action, "r1", ``))
		require.Equal(t, streamer.ErrCodeInvalidAction, err.Code, "%.10q", action)
		require.Less(t, len(err.Message), 1000)
	}
	require.Contains(t, s.refused(alice, request("unknown", "r1", ``)).Message, `"unknown"`)
}

func TestFallbackTakesActionsWithoutAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		echo := streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
			return ok(req.Action)
		})
		s := serve(t, func(m *streamer.Mux) { m.Handle("own", returns("own")) }, streamer.WithFallback(echo, streamer.WithEstimate(0)))
		defer s.stop()
		require.Equal(t, `"own"`, string(s.ends("own", "r1", ``).Data))
		end := s.submit("anything.else", "r2", ``).End
		require.Equal(t, `"anything.else"`, string(end.Data), "its options apply: it is short work")
		require.Equal(t, streamer.ErrCodeInvalidAction, s.refused(alice, request("", "r3", ``)).Code, "it has no name")
		require.Equal(t, streamer.ErrCodeValidation, s.refused(alice, request("a\xff", "r3", ``)).Code, "not UTF-8")
		require.Equal(t, streamer.ErrCodeValidation, s.refused(alice, request(strings.Repeat("a", 129), "r3", ``)).Code)
	})
}

func TestPayloadOverItsLimitIsRefused(t *testing.T) {
	text := func(n int) string { return `"` + strings.Repeat("a", n-2) + `"` }
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	s.submit("x", "default", text(1<<20))
	err := s.refused(alice, request("x", "r1", text(1<<20+1)))
	require.Equal(t, streamer.ErrCodePayloadTooLarge, err.Code)
	require.Contains(t, err.Message, "1048577 bytes, at most 1048576")

	s = gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLimits(streamer.Limits{Payload: 10}))
	s.submit("x", "own", text(10))
	require.Equal(t, streamer.ErrCodePayloadTooLarge, s.refused(alice, request("x", "r1", text(11))).Code)
}

func TestNegativeTimeoutIsRefused(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	require.Equal(t, streamer.ErrCodeValidation, s.refused(alice, &streamer.Request{Action: "x", Timeout: -1}).Code)
}

func TestHandlerSeesTheIdentityAndTheClientsMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		see := streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
			return ok(map[string]any{"metadata": req.Metadata, "created": req.CreatedAt})
		})
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("queued", see)
			m.Handle("short", see, streamer.WithEstimate(0))
		})
		defer s.stop()
		now := time.Now().Format(time.RFC3339Nano)
		for _, action := range []string{"queued", "short"} {
			own := map[string]string{"trace": "t1", "user_id": "alice"}
			receipt, err := s.Submit(t.Context(), alice, &streamer.Request{ID: action, Action: action, Metadata: own, CreatedAt: time.Unix(0, 0)})
			require.NoError(t, err)
			require.Len(t, own, 2, "the caller's map is left alone")
			end := receipt.End
			if end == nil {
				end = s.end(action)
			}
			require.JSONEq(t, `{"metadata":{"trace":"t1","user_id":"alice","tenant_id":"acme"},"created":"`+now+`"}`, string(end.Data), action)
		}
	})
}

func TestMetadataRules(t *testing.T) {
	entries := func(n int) map[string]string {
		m := make(map[string]string, n)
		for i := range n {
			m[fmt.Sprint(i)] = ""
		}
		return m
	}
	nobody := streamer.Identity{}
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	for name, c := range map[string]struct {
		who      streamer.Identity
		metadata map[string]string
		says     string
	}{
		"reserved name":          {alice, map[string]string{"streamer.x": "1"}, `"streamer." are reserved`},
		"another user":           {alice, map[string]string{"user_id": "bob"}, "contradicts the identity"},
		"no user":                {alice, map[string]string{"user_id": ""}, "contradicts the identity"},
		"another tenant":         {alice, map[string]string{"tenant_id": "evil"}, "contradicts the identity"},
		"a user for nobody":      {nobody, map[string]string{"user_id": "alice"}, "contradicts the identity"},
		"a tenant for nobody":    {nobody, map[string]string{"tenant_id": "acme"}, "contradicts the identity"},
		"too many entries":       {alice, entries(33), "33 entries, at most 32"},
		"too many bytes":         {alice, map[string]string{"k": strings.Repeat("v", 8<<10)}, "8193 bytes, at most 8192"},
		"too many bytes of name": {alice, map[string]string{strings.Repeat("k", 8<<10+1): ""}, "8193 bytes, at most 8192"},
	} {
		err := s.refused(c.who, &streamer.Request{Action: "x", Metadata: c.metadata})
		require.Equal(t, streamer.ErrCodeValidation, err.Code, name)
		require.Contains(t, err.Message, c.says, name)
	}
	for name, metadata := range map[string]map[string]string{
		"none": nil, "32 entries": entries(32), "8 KiB": {"k": strings.Repeat("v", 8<<10-1)}, "much like reserved": {"streamer": "1", "Streamer.x": "1"},
		"the own identity": {"user_id": "alice", "tenant_id": "acme"},
	} {
		_, err := s.Submit(t.Context(), alice, &streamer.Request{Action: "x", Metadata: metadata})
		require.NoError(t, err, name)
	}
	_, err := s.Submit(t.Context(), nobody, &streamer.Request{Action: "x"})
	require.NoError(t, err, "the anonymous identity")
}

func TestSameIDWithAnotherBodyConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", returns(1))
			m.Handle("y", returns(2))
			m.Handle("short", returns(3), streamer.WithEstimate(0))
		})
		defer s.stop()
		first := s.submit("x", "r1", `{"a":1}`)
		for _, other := range []*streamer.Request{
			request("x", "r1", `{"a":2}`), request("x", "r1", `{"a": 1}`), request("x", "r1", ``), request("y", "r1", `{"a":1}`), request("short", "r1", `{"a":1}`),
		} {
			require.Equal(t, streamer.ErrCodeConflict, s.refused(alice, other).Code)
		}
		again, err := s.Submit(t.Context(), alice, &streamer.Request{ID: "r1", Action: "x", Payload: []byte(`{"a":1}`), Metadata: map[string]string{"trace": "other"}})
		require.NoError(t, err, "metadata is not the body")
		require.True(t, again.Duplicate)
		require.Equal(t, first.State.Epoch, again.State.Epoch)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")), "conflicts leave no trace")
		again = s.submit("x", "r1", `{"a":1}`)
		require.Equal(t, progress.Completed, again.State.Phase, "the receipt says how it stands")
		require.Nil(t, again.End, "queued work has other events than its end")
	})
}

// picky is a handler whose Validate a test controls.
type picky struct {
	streamer.HandlerFunc
	validate func(req *streamer.Request) error
}

func (p picky) Validate(req *streamer.Request) error { return p.validate(req) }

func TestValidateRefusesBeforeAnythingIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]func() error{
			"public":  func() error { return streamer.NewError("BAD_RANGE", "end before start").WithDetail("field", "end") },
			"wrapped": func() error { return fmt.Errorf("in here: %w", streamer.NewError("BAD_RANGE", "end before start")) },
			"plain":   func() error { return errors.New("secret dsn") },
			"panics":  func() error { panic("secret dsn") },
		}
		runs := 0
		h := picky{doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
			runs++
			return ok(1)
		}), func(req *streamer.Request) error {
			if req.ID == "" || req.Metadata["user_id"] != "alice" {
				return errors.New("Validate sees the request as it will be stored")
			}
			return answers[req.Metadata["answer"]]()
		}}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("queued", h)
			m.Handle("short", h, streamer.WithEstimate(0))
		})
		defer s.stop()
		for _, action := range []string{"queued", "short"} {
			for answer, code := range map[string]string{
				"public": "BAD_RANGE", "wrapped": "BAD_RANGE", "plain": streamer.ErrCodeValidation, "panics": streamer.ErrCodeInternalError,
			} {
				err := s.refused(alice, &streamer.Request{ID: "r1", Action: action, Metadata: map[string]string{"answer": answer}})
				require.Equal(t, code, err.Code, "%s, %s", action, answer)
				require.NotContains(t, fmt.Sprint(err.Message, err.Details), "secret", "%s, %s", action, answer)
				if answer == "public" {
					require.Equal(t, "end", err.Details["field"])
				}
			}
		}
		_, err := s.Attach(t.Context(), alice, "r1")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		synctest.Wait()
		require.Zero(t, runs)
	})
}

func TestRequestThatExistsIsAttachedToWhateverValidateThinksByNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Bool
		h := picky{returns(1), func(*streamer.Request) error {
			if closed.Load() {
				return streamer.NewError("CLOSED", "come back tomorrow")
			}
			return nil
		}}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("queued", h)
			m.Handle("short", h, streamer.WithEstimate(0))
		})
		defer s.stop()
		for _, action := range []string{"queued", "short"} {
			closed.Store(false)
			s.submit(action, action, `{}`)
			closed.Store(true)
			require.True(t, s.submit(action, action, `{}`).Duplicate, action)
			require.Equal(t, "CLOSED", s.refused(alice, request(action, "new", `{}`)).Code, action)
		}
	})
}

func TestPermissionGuardsSubmitFollowAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setup := func(m *streamer.Mux) {
			m.Handle("guarded", waits(), streamer.WithPermission("export"))
			m.Handle("short", returns(1), streamer.WithPermission("export"), streamer.WithEstimate(0))
		}
		s := serve(t, setup)
		defer s.stop()
		allowed := alice
		allowed.Permissions = []string{"import", "export"}
		almost := alice
		almost.Permissions = []string{"import", "exports"}

		for _, who := range []streamer.Identity{alice, almost} {
			for _, action := range []string{"guarded", "short"} {
				require.Equal(t, streamer.ErrCodeForbidden, s.refused(who, request(action, "r1", ``)).Code)
			}
		}
		_, err := s.Submit(t.Context(), allowed, request("guarded", "r1", ``))
		require.NoError(t, err)
		_, unknown := s.Attach(t.Context(), alice, "unknown")
		_, err = s.Attach(t.Context(), alice, "r1")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		require.Equal(t, unknown, err, "it can't be told from a request that does not exist")
		_, err = s.Cancel(t.Context(), alice, "r1", "")
		require.Equal(t, unknown, err)

		synctest.Wait()
		_, err = s.Attach(t.Context(), allowed, "r1")
		require.NoError(t, err)
		st, err := s.Cancel(t.Context(), allowed, "r1", "")
		require.NoError(t, err)
		require.Equal(t, progress.Canceling, st.Phase)
	})
}

func TestCancelTellsTheEndOfWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", returns(1))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
		})
		defer s.stop()
		for _, action := range []string{"x", "short"} {
			s.ends(action, action, ``)
			st, err := s.Cancel(t.Context(), alice, action, "too late")
			require.NoError(t, err)
			require.Equal(t, progress.Completed, st.Phase)
			require.Equal(t, st, s.state(action), "nothing was appended")
		}
	})
}

func TestReasonOfACancelIsKeptShort(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	s.submit("x", "r1", ``)
	_, err := s.Cancel(t.Context(), alice, "r1", strings.Repeat("é", 10_000))
	require.NoError(t, err)
	message := s.end("r1").Error.Message
	require.Equal(t, strings.Repeat("é", 512), message)
}

func TestRequestThatWaitsForItsNextAttemptIsCanceledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", fails(streamer.NewError("BUSY", "").WithRetry(time.Hour)))
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		require.Equal(t, progress.Retrying, s.state("r1").Phase)
		st, err := s.Cancel(t.Context(), alice, "r1", "")
		require.NoError(t, err)
		require.Equal(t, progress.Canceled, st.Phase)
		time.Sleep(2 * time.Hour)
		require.EqualValues(t, 1, s.Stats().Started)
		require.EqualValues(t, 1, s.Stats().Dropped, "its ticket found the end")
	})
}

func TestShortWorkThatIsSubmittedTwiceAtOnceHasOneEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		s := gateway(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				n := runs.Add(1)
				time.Sleep(time.Second)
				return ok(n)
			}), streamer.WithEstimate(0))
		})
		receipts := make(chan *streamer.Receipt, 10)
		for range 10 {
			go func() { receipts <- s.submit("x", "r1", ``) }()
		}
		first, duplicates := <-receipts, 0
		if first.Duplicate {
			duplicates++
		}
		for range 9 {
			r := <-receipts
			require.Same(t, first.End, r.End, "whoever ran it, all get what was stored")
			if r.Duplicate {
				duplicates++
			}
		}
		require.Equal(t, 9, duplicates)
	})
}

func TestViewerOfAReceiptFollowsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", returns(1))
			m.Handle("short", returns(2), streamer.WithEstimate(0))
		}, streamer.WithRetention(time.Minute))
		defer s.stop()
		for action, want := range map[string]string{"x": "accepted started completed", "short": "completed"} {
			for range 2 {
				r := s.submit(action, action, ``)
				require.Equal(t, action, r.Viewer.ID())
				var all []*progress.Event
				for e, err := range r.Viewer.Events(t.Context(), 0) {
					require.NoError(t, err)
					all = append(all, e)
				}
				require.Equal(t, want, kinds(all))
			}
		}
		old := s.submit("x", "x", ``).Viewer
		time.Sleep(time.Minute)
		s.ends("x", "x", `"again"`)
		require.ErrorContains(t, only(t, old, 0), "recreated")
	})
}

func TestEndOfTheContextEndsTheWaitForShortWorkAndNotTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(10 * time.Second)
				return ok(1)
			}), streamer.WithEstimate(0))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := s.Submit(ctx, alice, request("x", "r1", ``))
		requireUnavailable(t, err)
		require.Equal(t, time.Second, time.Since(began))
		time.Sleep(10 * time.Second)
		again := s.submit("x", "r1", ``)
		require.True(t, again.Duplicate)
		require.Equal(t, progress.Completed, again.End.Kind)
	})
}

func TestPayloadThatIsNoJSONIsRefused(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
	for _, payload := range []string{`{`, `{} {}`, `'a'`, "\x00", ` `} {
		require.Equal(t, streamer.ErrCodeValidation, s.refused(alice, request("x", "r1", payload)).Code, "%q", payload)
	}
	for _, payload := range []string{``, `null`, ` 1 `} {
		s.submit("x", "", payload)
	}
}
