package sse

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

// FuzzCursors: whatever query and header say, what is accepted names valid requests within
// bounds, and what was shown as an event's id is read as the same cursors.
func FuzzCursors(f *testing.F) {
	f.Add("r=r1:k3f9:41&r=r2", "r1:k3f9:42,r2:m7q1:3")
	f.Add("after=41&epoch=k3f9", "k3f9:42")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, query, header string) {
		r := httptest.NewRequest("GET", "/events", nil)
		r.URL.RawQuery = query
		r.Header["Last-Event-Id"] = []string{header}
		for _, what := range []resource{events, requestEvents} {
			all, err := cursors(what, "r1", r)
			if err != nil {
				require.NotContains(t, err.Error(), "\n")
				require.Less(t, len(err.Error()), 300)
				continue
			}
			require.NotEmpty(t, all)
			require.LessOrEqual(t, len(all), maxFollowed)
			s := &stream{set: &set{}, single: what == requestEvents}
			ids := map[string]bool{}
			for _, c := range all {
				require.True(t, wire.ValidID(c.ID))
				require.False(t, ids[c.ID], "twice")
				ids[c.ID] = true
				require.LessOrEqual(t, c.After, uint64(maxSeq))
				s.refused(c)
			}
			again := httptest.NewRequest("GET", "/events", nil)
			again.URL.RawQuery = query
			again.Header.Set("Last-Event-ID", string(s.appendPlace(nil, s.cursor(s.followed[0]))))
			same, err := cursors(what, "r1", again)
			require.NoError(t, err)
			require.Equal(t, all, same)
		}
	})
}

// refused is refuse without a call.
func (s *set) refused(c wire.Cursor) {
	f := &followed{id: c.ID}
	f.cursor.Epoch, f.cursor.After = c.Epoch, c.After
	s.followed = append(s.followed, f)
}

// FuzzPrefer: a wait is within bounds, and what was applied means the same when it is preferred.
func FuzzPrefer(f *testing.F) {
	f.Add("respond-async, wait=10")
	f.Add(`wait="99999999999999999999"; x=y, wait=1`)
	f.Fuzz(func(t *testing.T, value string) {
		p := prefer(http.Header{"Prefer": {value}})
		require.GreaterOrEqual(t, p.wait, time.Duration(0))
		require.LessOrEqual(t, p.wait, maxWait)
		require.Equal(t, p, prefer(http.Header{"Prefer": {p.header}}))
		require.Empty(t, strings.Trim(p.header, "abcdefghijklmnopqrstuvwxyz-=, 0123456789"))
	})
}

// FuzzResolve: a path that names a request names it in one way.
func FuzzResolve(f *testing.F) {
	f.Add("/requests/r1/events")
	f.Add("//requests/..")
	f.Fuzz(func(t *testing.T, path string) {
		switch what, id := resolve(path); what {
		case request:
			require.Equal(t, path, "/requests/"+id)
		case requestEvents:
			require.Equal(t, path, "/requests/"+id+"/events")
		default:
			require.Empty(t, id)
		}
	})
}
