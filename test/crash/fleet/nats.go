package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const natsConfig = `server_name: %[1]q
listen: %[2]q
http: %[3]q
jetstream { store_dir: %[4]q, max_mem: 256MB, max_file: 4GB }
cluster { name: "crash", listen: %[5]q, routes: [%[6]s] }
`

// cluster describes the NATS servers, and returns where clients reach them.
func cluster(spec Spec, bin string, ports *ports) (nodes []*Process, urls []string, err error) {
	peers := make([]string, spec.Nodes)
	var routes []string
	for i := range peers {
		peers[i] = ports.addr()
		routes = append(routes, fmt.Sprintf("%q", "nats://"+peers[i]))
	}
	for i, peer := range peers {
		name := fmt.Sprintf("nats-%d", i+1)
		addr, monitor := ports.addr(), ports.addr()
		file := filepath.Join(spec.Dir, "data", name+".conf")
		text := fmt.Sprintf(natsConfig, name, addr, monitor, filepath.Join(spec.Dir, "data", name), peer, strings.Join(routes, ", "))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
		p := newProcess(spec, name, NATS, addr, filepath.Join(bin, "nats-server"), []string{"-c", file})
		p.probe = healthy(monitor)
		p.monitor = monitor
		nodes = append(nodes, p)
		urls = append(urls, "nats://"+addr)
	}
	return nodes, urls, nil
}

// healthy waits until a server says that it is well and has caught up with the others.
func healthy(monitor string) func(context.Context, io.Reader) error {
	return func(ctx context.Context, _ io.Reader) error {
		return until(ctx, func() bool { return isHealthy(ctx, monitor) })
	}
}

func isHealthy(ctx context.Context, monitor string) bool {
	var health struct{ Status string }
	return ask(ctx, monitor, "/healthz", &health) == nil && health.Status == "ok"
}

// Settled waits until all NATS servers are well and agree on the leader of the stream with that
// name. A server that is back is not all that takes: leaders must be elected.
func (f *Fleet) Settled(ctx context.Context, stream string) error {
	return until(ctx, func() bool {
		for _, node := range f.Nodes {
			if !isHealthy(ctx, node.monitor) {
				return false
			}
		}
		return f.Leader(ctx, stream) != nil
	})
}

// until asks now and then whether something is so, until it is or ctx ends.
func until(ctx context.Context, is func() bool) error {
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for !is() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Leader returns the server that leads the stream with that name, or nil.
func (f *Fleet) Leader(ctx context.Context, stream string) *Process {
	var jsz struct {
		Accounts []struct {
			Streams []struct {
				Name    string
				Cluster struct{ Leader string }
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	for _, node := range f.Nodes {
		if ask(ctx, node.monitor, "/jsz?streams=true", &jsz) != nil {
			continue
		}
		for _, account := range jsz.Accounts {
			for _, s := range account.Streams {
				if s.Name != stream {
					continue
				}
				for _, p := range f.Nodes {
					if p.Name == s.Cluster.Leader {
						return p
					}
				}
			}
		}
	}
	return nil
}

// ask reads a page of a server's monitoring.
func ask(ctx context.Context, monitor, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+monitor+path, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}
