package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/examples/mounting/suite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBothTransportsWorkThroughTheMiddleware(t *testing.T) { suite.Run(t, serve) }

func TestTheRestOfTheApplicationIsCompressed(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	mount(http.NotFoundHandler(), http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
}
