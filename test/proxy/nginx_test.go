package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/transport"
)

func TestTheShippedNginxConfiguration(t *testing.T) {
	t.Parallel()
	promises(t, func(t *testing.T, u *upstream) *front {
		f := nginx{server: shippedNginx(t, u, "")}.start(t)
		f.root += "/app"
		return f
	})
}

func TestNginxThatKnowsNothingOfStreamsDoesNotHoldThemBack(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	live(u, nginx{server: plain(u, "")}.start(t))
}

// What holds a stream back for real must show, or the test before would prove nothing.
func TestNginxThatIgnoresXAccelBufferingHoldsStreamsBack(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	f := nginx{server: plain(u, "proxy_ignore_headers X-Accel-Buffering;")}.start(t)
	where := f.submit("r1")
	first, rest := make(chan byte, 1), make(chan string, 1)
	go func() {
		resp, err := f.http.Get(where + "/events")
		if err != nil {
			rest <- err.Error()
			return
		}
		defer resp.Body.Close()
		var one [1]byte
		if n, _ := resp.Body.Read(one[:]); n == 1 {
			first <- one[0]
		}
		all, _ := io.ReadAll(resp.Body)
		rest <- string(all)
	}()
	u.report("r1", 50)
	select {
	case b := <-first:
		require.Fail(t, "something came", "%q", b)
	case <-time.After(2 * prompt):
	}
	u.finish("r1")
	all := <-rest
	require.Contains(t, all, "event: progress\n")
	require.Contains(t, all, "event: end\n")
}

// A wait of the longest time must not become a 504.
func TestTheShippedNginxConfigurationIsMorePatientThanAnyWait(t *testing.T) {
	t.Parallel()
	found := regexp.MustCompile(`proxy_read_timeout (\d+)s;`).FindAllStringSubmatch(shipped(t, "nginx.conf"), -1)
	require.Len(t, found, 2)
	for _, m := range found {
		seconds, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		require.GreaterOrEqual(t, seconds, 60+10) // and the time that the answer's write may take
	}
}

func TestNginxThatCompressesLeavesStreamsAlone(t *testing.T) {
	t.Parallel()
	const all = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"
	t.Run("where only its usual types are compressed", func(t *testing.T) {
		t.Parallel()
		u := startUpstream(t)
		live(u, nginx{http: "gzip on; gzip_proxied any;", server: plain(u, "")}.start(t))
	})
	t.Run("where all types are, with the shipped configuration", func(t *testing.T) {
		t.Parallel()
		u := startUpstream(t)
		f := nginx{http: all, server: shippedNginx(t, u, "")}.start(t)
		f.root += "/app"
		live(u, f)
	})
	t.Run("and long polls understand the ETag that compression weakens", func(t *testing.T) {
		t.Parallel()
		u := startUpstream(t)
		f := nginx{http: all, server: plain(u, "")}.start(t)
		where := f.submit("r1")
		u.output("r1", 0)
		resp := f.call("GET", where, "", "Accept-Encoding", "gzip")
		require.Equal(t, "gzip", resp.Header.Get("Content-Encoding"))
		tag := resp.Header.Get("ETag")
		require.Regexp(t, `^W/"`, tag)
		f.body(f.call("GET", where, "", "If-None-Match", tag), http.StatusNotModified)
	})
}

func TestABrowserBehindAProxyThatEndsTLS(t *testing.T) {
	t.Parallel()
	page := []string{"Host", "app.example.com", "Origin", "https://app.example.com", "Sec-Fetch-Site", "same-origin"}
	upgrade := append([]string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "c3RyZWFtZXItcHJveHktMQ=="}, page...)
	for name, c := range map[string]struct {
		options           []transport.Option
		submitted, opened int
	}{
		"is a foreign one to the server":        {nil, 403, 403},
		"is let in by WithOrigins":              {[]transport.Option{transport.WithOrigins("https://app.example.com")}, 200, 101},
		"and by WithHosts, of the Host it sent": {[]transport.Option{transport.WithOrigins("https://app.example.com"), transport.WithHosts("app.example.com")}, 200, 101},
		"but not of another Host":               {[]transport.Option{transport.WithOrigins("https://app.example.com"), transport.WithHosts("127.0.0.1:8080")}, 403, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := nginx{server: shippedNginx(t, startUpstream(t, c.options...), "")}.start(t)
			f.root += "/app"
			require.Equal(t, c.submitted, f.call("POST", "/api/requests", `{"action":"echo"}`, page...).StatusCode)
			require.Equal(t, c.opened, f.call("GET", "/ws", "", upgrade...).StatusCode)
		})
	}
}

func TestNginxWithHTTP2InFront(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*upstream, *front) {
		t.Parallel()
		u := startUpstream(t)
		certificate, files := certify(t)
		f := nginx{server: shippedNginx(t, u, " ssl http2"), http: files}.start(t)
		f.root = "https://" + f.host + "/app"
		pool := x509.NewCertPool()
		pool.AddCert(certificate)
		f.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
		return u, f
	}
	t.Run("carries many streams over one connection", func(t *testing.T) {
		u, f := start(t)
		f.http.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		var streams []*stream
		for i := range 10 {
			st := f.open(f.submit(fmt.Sprintf("r%d", i)) + "/events")
			require.Equal(t, 2, st.answer.ProtoMajor)
			streams = append(streams, st)
		}
		for i, st := range streams {
			u.report(fmt.Sprintf("r%d", i), 50)
			st.until("progress")
		}
		for i, st := range streams {
			u.finish(fmt.Sprintf("r%d", i))
			st.ends()
			require.Equal(t, numbers(3), st.seqs)
		}
	})
	t.Run("shows progress at once", func(t *testing.T) {
		u, f := start(t)
		f.http.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		live(u, f)
	})
	t.Run("takes WebSockets over connections of HTTP 1.1, as browsers open them", func(t *testing.T) {
		u, f := start(t)
		overWebSocket(u, f)
	})
}

func TestTheHeaderThatAnotherProxyNeedsIsPassedOn(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	f := nginx{server: shippedNginx(t, u, "")}.start(t)
	f.root += "/app"
	st := f.open(f.submit("r1") + "/events")
	require.Equal(t, "no", st.answer.Header.Get("X-Accel-Buffering"))
	u.finish("r1")
	st.ends()
}

// certify makes a certificate for tests, and returns the directives that have nginx use it.
func certify(t *testing.T) (*x509.Certificate, string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return server.Certificate(), fmt.Sprintf("ssl_certificate %s/crt; ssl_certificate_key %s/key;", dir, dir)
}
