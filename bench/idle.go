package main

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
