package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// hub is the floor of event streams, as one would write it by hand: a message is encoded once,
// each viewer has a channel, and what comes through it is written and flushed. It keeps nothing,
// and whoever reads slowly holds up the others.
type hub struct {
	emits chan int // outputs to be made

	mu      sync.Mutex
	viewers map[*hubViewer]struct{}
	seq     int
}

type hubViewer struct {
	events chan []byte
	gone   <-chan struct{}
}

func newHub() *hub {
	h := &hub{emits: make(chan int), viewers: make(map[*hubViewer]struct{})}
	go h.run()
	return h
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &hubViewer{make(chan []byte, 16), r.Context().Done()}
	h.mu.Lock()
	h.viewers[v] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.viewers, v)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	message := []byte(":\n\n")
	for {
		if _, err := w.Write(message); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case message = <-v.events:
		case <-beat.C:
			message = []byte(":\n\n")
		case <-v.gone:
			return
		}
	}
}

func (h *hub) run() {
	for n := range h.emits {
		for range n {
			if err := h.emit(); err != nil {
				return
			}
		}
	}
}

func (h *hub) emit() error {
	data, err := json.Marshal(newRow(h.seq))
	if err != nil {
		return err
	}
	h.seq++
	m := fmt.Appendf(nil, "event: output\nid: k3f9:%d\ndata: ", h.seq)
	m = number(begin(m, "output", "fan"), "seq", h.seq)
	m = number(append(m, `,"attempt":1`...), "index", h.seq-1)
	m = append(append(append(m, `,"data":`...), data...), "}\n\n"...)
	h.mu.Lock()
	defer h.mu.Unlock()
	for v := range h.viewers {
		select {
		case v.events <- m:
		case <-v.gone:
		}
	}
	return nil
}

// desk is the floor of requests over HTTP: a handler that decodes the request, does short work
// itself, has long work done by a pool of goroutines, and answers with the same messages as the
// product.
type desk struct {
	orders chan order
}

type order struct {
	payload json.RawMessage
	done    chan<- outcome
}

type outcome struct {
	data []byte
	err  error
}

func newDesk() *desk {
	d := &desk{orders: make(chan order, 1024)}
	for range workers {
		go d.work()
	}
	return d
}

func (d *desk) work() {
	for o := range d.orders {
		o.done <- tally(o.payload)
	}
}

// tally does the work of a request and encodes the result.
func tally(payload json.RawMessage) outcome {
	t, err := newTotal(payload)
	if err != nil {
		return outcome{err: err}
	}
	data, err := json.Marshal(t)
	return outcome{data, err}
}

// newTotal is the work of a request over HTTP, of floor and product alike.
func newTotal(payload []byte) (t total, err error) {
	var query struct {
		Format  string   `json:"format"`
		Month   string   `json:"month"`
		Columns []string `json:"columns"`
	}
	err = json.Unmarshal(payload, &query)
	return total{len(query.Columns)}, err
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		ID      string          `json:"id"`
		Action  string          `json:"action"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&req); err != nil {
		http.Error(w, "not a request", http.StatusBadRequest)
		return
	}
	var end outcome
	if req.Action == actionShort {
		end = tally(req.Payload)
	} else {
		done := make(chan outcome, 1)
		d.orders <- order{req.Payload, done}
		end = <-done
	}
	if end.err != nil {
		http.Error(w, "not a payload", http.StatusBadRequest)
		return
	}
	var m []byte
	if req.Action == actionShort {
		m = append(number(begin(nil, "response", req.ID), "seq", 1), `,"success":true,"data":`...)
		m = append(append(m, end.data...), '}')
	} else {
		m = append(number(begin(nil, "complete", req.ID), "seq", 3), `,"success":true,"result":`...)
		m = append(stamp(append(m, end.data...)), '}')
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(m)
}
