package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// front is a proxy, and a client in front of it.
type front struct {
	t    *testing.T
	host string
	http *http.Client
	root string // of the server behind, as the client knows it: a URL without the last slash
}

// ports are those that this process has not used yet. They are below those that systems give to
// whoever wants any port: such a port could be taken before a proxy or a server is on it, or
// while a server is down that comes back on it.
var ports atomic.Int32

const firstPort, lastPort = 12000, 32000

// address returns one on which nobody listens.
func address(t *testing.T) string {
	t.Helper()
	ports.CompareAndSwap(0, firstPort+rand.Int32N((lastPort-firstPort)/2))
	for {
		port := ports.Add(1)
		require.Less(t, port, int32(lastPort), "no port is free")
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
}

// startFront starts a proxy. command writes its configuration for the address and returns how to
// start it. The proxy is killed when the test ends.
func startFront(t *testing.T, command func(addr string) *exec.Cmd) *front {
	t.Helper()
	addr := address(t)
	cmd := command(addr)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s says:\n%s", cmd.Path, out)
		}
	})
	require.True(t, answers(addr, ended), "%s does not start", cmd.Path)
	return &front{t: t, host: addr, http: &http.Client{Transport: transport}, root: "http://" + addr}
}

// answers waits until somebody listens. It returns false when the process ends before.
func answers(addr string, ended <-chan struct{}) bool {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	late := time.After(patience)
	for {
		select {
		case <-ended:
			return false
		case <-late:
			return false
		case <-ticker.C:
			if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				conn.Close()
				return true
			}
		}
	}
}

// output is what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// program returns where a program is.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	require.FailNow(t, fmt.Sprintf("%s is not installed. Install it with your system's package manager, for instance: sudo apt-get install %s", name, name))
	return ""
}

// shipped returns a configuration of docs/proxies, with parts of it replaced. Each must be there
// exactly once. Replacements are pairs of old and new.
func shipped(t *testing.T, name string, replacements ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "proxies", name))
	require.NoError(t, err)
	conf := string(data)
	for i := 0; i < len(replacements); i += 2 {
		require.Equal(t, 1, strings.Count(conf, replacements[i]), "%s in docs/proxies/%s", replacements[i], name)
		conf = strings.Replace(conf, replacements[i], replacements[i+1], 1)
	}
	return conf
}

// nginx is how nginx is set up.
type nginx struct {
	http   string // more directives of the http block
	server func(addr string) string
}

// nginxMain is what is around a configuration that goes into the http block. There is one
// process, so that nothing stays behind when it is killed.
const nginxMain = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    %s
    include %s;
}
`

func (n nginx) start(t *testing.T) *front {
	t.Helper()
	path := program(t, "nginx")
	dir := t.TempDir()
	return startFront(t, func(addr string) *exec.Cmd {
		main, conf := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "streamer.conf")
		require.NoError(t, os.WriteFile(conf, []byte(n.server(addr)), 0o600))
		require.NoError(t, os.WriteFile(main, fmt.Appendf(nil, nginxMain, n.http, conf), 0o600))
		return exec.Command(path, "-p", dir, "-e", "stderr", "-c", main)
	})
}

// plain is what somebody writes who knows nothing of streams. more goes into its location.
func plain(u *upstream, more string) func(string) string {
	return func(addr string) string {
		return "server {\n listen " + addr + ";\n location / {\n proxy_pass http://" + u.addr + ";\n " + more + "\n }\n}\n"
	}
}

// shippedNginx returns docs/proxies/nginx.conf for the server. listen comes behind the address.
func shippedNginx(t *testing.T, u *upstream, listen string) func(string) string {
	return func(addr string) string {
		return shipped(t, "nginx.conf", "server 127.0.0.1:8080;", "server "+u.addr+";", "listen 80;", "listen "+addr+listen+";")
	}
}

// startCaddy starts Caddy with docs/proxies/Caddyfile. more goes into its site.
func startCaddy(t *testing.T, u *upstream, more string) *front {
	t.Helper()
	path := program(t, "caddy")
	dir := t.TempDir()
	f := startFront(t, func(addr string) *exec.Cmd {
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		conf := "{\n\tadmin off\n\tauto_https off\n}\n" + shipped(t, "Caddyfile",
			"app.example.com {\n", "http://:"+port+" {\n\tbind 127.0.0.1\n\t"+more+"\n", "127.0.0.1:8080", u.addr)
		file := filepath.Join(dir, "Caddyfile")
		require.NoError(t, os.WriteFile(file, []byte(conf), 0o600))
		cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
		return cmd
	})
	f.root += "/app"
	return f
}
