package proxy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheShippedCaddyfile(t *testing.T) {
	t.Parallel()
	promises(t, func(t *testing.T, u *upstream) *front { return startCaddy(t, u, "") })
}

func TestCaddyThatCompressesLeavesStreamsAlone(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	f := startCaddy(t, u, "encode gzip zstd")
	large := `{"action":"echo","payload":"` + strings.Repeat("x", 4096) + `"}`
	require.Equal(t, "gzip", f.call("POST", "/api/requests", large, "Accept-Encoding", "gzip").Header.Get("Content-Encoding"))
	live(u, f)
}
