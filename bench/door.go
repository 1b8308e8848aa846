package main

import (
	"net"
	"net/http"
	"sync"
)

// door knows the hijacked connections of a server, to cut them all.
type door struct {
	mu    sync.Mutex
	conns []net.Conn
	shut  bool
}

// state is an http.Server's ConnState.
func (d *door) state(conn net.Conn, s http.ConnState) {
	if d.refuses(conn, s) {
		conn.Close()
	}
}

func (d *door) refuses(conn net.Conn, s http.ConnState) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == http.StateHijacked && !d.shut {
		d.conns = append(d.conns, conn)
	}
	return d.shut && s != http.StateClosed
}

// close cuts all connections and refuses new ones until open.
func (d *door) close() {
	d.mu.Lock()
	d.shut = true
	conns := d.conns
	d.conns = nil
	d.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = false
}
