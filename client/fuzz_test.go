package client

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	streamer "github.com/pay-theory/streamer/v2"
)

// requireSane fails unless a client that follows v waits for a time that is bounded, or stops
// with an error that says why.
func requireSane(t *testing.T, v verdict) {
	t.Helper()
	require.Error(t, v.err)
	require.GreaterOrEqual(t, v.floor, time.Duration(0))
	require.LessOrEqual(t, v.floor, maxFloor)
	require.Contains(t, []time.Duration{0, restartSpread}, v.spread)
	if v.denied || v.tooBig {
		require.NotNil(t, v.stop)
	}
	if v.stop != nil {
		require.NotEmpty(t, v.stop.Message)
		require.True(t, slices.Contains([]string{
			streamer.ErrCodeUnauthorized, streamer.ErrCodeForbidden, streamer.ErrCodeValidation,
			streamer.ErrCodePayloadTooLarge, streamer.ErrCodeServiceUnavailable, streamer.ErrCodeInternalError,
		}, v.stop.Code), v.stop.Code)
	}

	c := &Client{cfg: config{backoffMin: time.Millisecond, backoffMax: time.Second}, failures: math.MaxInt - 1}
	wait := c.backoff(v)
	require.GreaterOrEqual(t, wait, v.floor)
	require.LessOrEqual(t, wait, maxFloor+max(time.Second, restartSpread))
}

// wait is how long n units are, at most maxFloor.
func wait(n uint64, unit time.Duration) time.Duration {
	return time.Duration(min(n, uint64(maxFloor/unit))) * unit
}

// FuzzClose: whatever a server closes with, the client waits for a time that is bounded, and as
// long as it is asked to.
func FuzzClose(f *testing.F) {
	f.Add(uint16(4429), "retry_after_ms=1500", uint64(1500))
	f.Add(uint16(4503), "later", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, code uint16, reason string, ms uint64) {
		judged := func(code uint16, reason string) verdict {
			return judge(fmt.Errorf("failed to read: %w", websocket.CloseError{Code: websocket.StatusCode(code), Reason: reason}))
		}
		requireSane(t, judged(code, reason))
		if code < 4000 {
			require.Equal(t, judged(code, "").floor, judged(code, reason).floor, "a hint where none is expected")
			return
		}
		if !strings.Contains(reason, "retry_after_ms") {
			require.Zero(t, judged(code, reason).floor)
			asked := judged(code, fmt.Sprintf("%s retry_after_ms=%d", reason, ms))
			requireSane(t, asked)
			require.Equal(t, wait(ms, time.Millisecond), asked.floor)
		}
	})
}

// FuzzHandshake: whatever a server answers instead of a WebSocket, the client waits for a time
// that is bounded, and as long as it is asked to.
func FuzzHandshake(f *testing.F) {
	const problem = "application/problem+json"
	f.Add(503, "7", "", []byte(""), uint64(7000))
	f.Add(429, "Fri, 31 Dec 1999 23:59:59 GMT", problem, []byte(`{"detail":"slow down","retry_after_ms":1500}`), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, status int, retryAfter, contentType string, body []byte, n uint64) {
		judged := func(retryAfter, contentType, body string) verdict {
			resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
			resp.Header.Set("Retry-After", retryAfter)
			resp.Header.Set("Content-Type", contentType)
			return judge(dialError(resp, errors.New("bad handshake"), time.Unix(946684799, 0)))
		}
		v := judged(retryAfter, contentType, string(body))
		requireSane(t, v)
		if status == http.StatusSwitchingProtocols {
			require.Equal(t, streamer.ErrCodeInternalError, v.stop.Code)
			return
		}
		seconds := judged(strconv.FormatUint(n, 10), "", "")
		requireSane(t, seconds)
		require.Equal(t, wait(n, time.Second), seconds.floor)
		ms := judged("", problem, fmt.Sprintf(`{"detail":"later","retry_after_ms":%d}`, n>>1))
		requireSane(t, ms)
		require.Equal(t, wait(n>>1, time.Millisecond), ms.floor)
		require.Contains(t, ms.err.Error(), "later")
		require.GreaterOrEqual(t, judged(retryAfter, problem, `{"retry_after_ms":1000}`).floor, time.Second)
	})
}
