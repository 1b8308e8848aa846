package fleet

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// ports hands out ports that are free now and are likely to be when a process is restarted:
// below those that systems give to outgoing connections, of which there are many here.
type ports struct {
	taken map[int]bool
	err   error
}

const (
	firstPort = 12_000
	lastPort  = 30_000
)

func (p *ports) next() int {
	if p.taken == nil {
		p.taken = make(map[int]bool)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if p.taken[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		p.taken[port] = true
		return port
	}
	p.err = fmt.Errorf("fleet: no free port between %d and %d", firstPort, lastPort)
	return 0
}

func (p *ports) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.next()) }
