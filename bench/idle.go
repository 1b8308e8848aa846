package main

import "fmt"

// idle returns the resident bytes of a server process for each of n connections on which
// nothing happens.
func idle(n int) (perConnection float64, err error) {
	server, err := spawn(roleProduct)
	if err != nil {
		return 0, err
	}
	defer server.close()
	if err := warmUp(server); err != nil {
		return 0, err
	}
	before, err := server.settle()
	if err != nil {
		return 0, err
	}
	peers, err := crowd(server, n)
	defer hangUp(peers)
	if err != nil {
		return 0, err
	}
	after, err := server.settle()
	return float64(after-before) / float64(n), err
}

// warmUp has the server allocate what it needs once, and not for each connection.
func warmUp(server *child) error {
	peers, err := crowd(server, dialers)
	hangUp(peers)
	return err
}

// crowd opens n connections, and returns when each was welcomed.
func crowd(server *child, n int) ([]*peer, error) {
	peers := make([]*peer, n)
	err := limited(n, func(i int) error {
		p, err := dial(server.addr, server.hello())
		if err != nil {
			return err
		}
		peers[i] = p
		_, err = p.read()
		p.park()
		return err
	})
	return peers, err
}

func hangUp(peers []*peer) {
	for _, p := range peers {
		if p != nil {
			p.close()
		}
	}
}

// idleStreams are the resident bytes of a server process for each event stream on which nothing
// happens.
type idleStreams struct{ floor, product float64 }

// quietStreams measures n streams. Each is of a request of its own, which has been shown and is
// quiet; what the requests themselves take is not counted.
func quietStreams(n int) (r idleStreams, err error) {
	if r.floor, err = quiet(roleFloor, n, 0); err != nil {
		return r, err
	}
	r.product, err = quiet(roleCrowd, n, 1)
	return r, err
}

// quiet returns the resident bytes for each of n streams that were shown some outputs.
func quiet(role string, n, outputs int) (perStream float64, err error) {
	server, err := spawn(role)
	if err != nil {
		return 0, err
	}
	defer server.close()
	if err := server.hold(n); err != nil {
		return 0, err
	}
	id := func(i int) string { return fmt.Sprint("held-", i) }
	warm, err := audience(server.addr, min(n, dialers), outputs, id)
	disperse(warm)
	if err != nil {
		return 0, err
	}
	before, err := server.settle()
	if err != nil {
		return 0, err
	}
	streams, err := audience(server.addr, n, outputs, id)
	defer disperse(streams)
	if err != nil {
		return 0, err
	}
	for _, stream := range streams {
		stream.park()
	}
	after, err := server.settle()
	return float64(after-before) / float64(n), err
}
