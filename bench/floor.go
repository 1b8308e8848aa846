package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// floor is what one would write by hand: a channel, a pool of goroutines, and a WebSocket
// that gets one frame a message. It sends the same messages as the product and keeps nothing,
// so a lost connection loses the request.
type floor struct {
	jobs chan job
}

type job struct {
	id   string
	conn *websocket.Conn
	ctx  context.Context
}

// workers is how many handlers run at a time, on both sides: the product's default.
const workers = 64

func newFloor() *floor {
	f := &floor{jobs: make(chan job, 1024)}
	for range workers {
		go f.work()
	}
	return f
}

func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) { serveFloor(w, r, f.accept) }

// serveFloor takes requests from a WebSocket, one after the other, until it ends.
func serveFloor(w http.ResponseWriter, r *http.Request, accept func(j job, request []byte) error) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"streamer.v1"}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		_, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		var req struct {
			Type    string          `json:"type"`
			ID      string          `json:"id"`
			Action  string          `json:"action"`
			Payload json.RawMessage `json:"payload"`
		}
		if err := json.Unmarshal(data, &req); err != nil || req.Action != "work" && req.Action != actionPaced {
			conn.Close(websocket.StatusUnsupportedData, "not a request")
			return
		}
		if err := accept(job{req.ID, conn, r.Context()}, data); err != nil {
			return
		}
	}
}

func (f *floor) accept(j job, _ []byte) error {
	if err := j.acknowledge(); err != nil {
		return err
	}
	f.jobs <- j
	return nil
}

// acknowledge tells the client that its request is accepted.
func (j job) acknowledge() error {
	m := begin(nil, "acknowledgment", j.id)
	m = append(m, `,"epoch":"k3f9","seq":1,"status":"queued","message":"Request queued for async processing","duplicate":false`...)
	return j.conn.Write(j.ctx, websocket.MessageText, append(stamp(m), '}'))
}

func (f *floor) work() {
	for j := range f.jobs {
		f.run(j)
	}
}

func (f *floor) run(j job) {
	seq := 2
	m := append(number(begin(nil, "status", j.id), "seq", seq), `,"status":"running","attempt":1}`...)
	if err := j.conn.Write(j.ctx, websocket.MessageText, m); err != nil {
		return
	}
	for i := range outputs {
		data, err := json.Marshal(newRow(i))
		if err != nil {
			return
		}
		seq++
		m = number(begin(m[:0], "output", j.id), "seq", seq)
		m = number(append(m, `,"attempt":1`...), "index", i)
		m = append(append(append(m, `,"data":`...), data...), '}')
		if err := j.conn.Write(j.ctx, websocket.MessageText, m); err != nil {
			return
		}
	}
	data, err := json.Marshal(total{outputs})
	if err != nil {
		return
	}
	m = number(begin(m[:0], "complete", j.id), "seq", seq+1)
	m = append(append(m, `,"success":true,"result":`...), data...)
	m = append(stamp(m), '}')
	j.conn.Write(j.ctx, websocket.MessageText, m) // a failure shows in the read loop
}

// frames returns what a client gets of a request after its acknowledgment.
func frames(id string) ([][]byte, error) {
	list := make([][]byte, 0, outputs+2)
	list = append(list, append(number(begin(nil, "status", id), "seq", 2), `,"status":"running","attempt":1}`...))
	for i := range outputs {
		data, err := json.Marshal(newRow(i))
		if err != nil {
			return nil, err
		}
		m := number(begin(nil, "output", id), "seq", 3+i)
		m = number(append(m, `,"attempt":1`...), "index", i)
		list = append(list, append(append(append(m, `,"data":`...), data...), '}'))
	}
	data, err := json.Marshal(total{outputs})
	if err != nil {
		return nil, err
	}
	m := number(begin(nil, "complete", id), "seq", 3+outputs)
	m = append(append(m, `,"success":true,"result":`...), data...)
	return append(list, append(stamp(m), '}')), nil
}

// storedSteps returns frames as the product stores what they are of, in three writes: the start,
// the first output, and what came while that was on its way, with the end.
func storedSteps(frames [][]byte) [][][]byte {
	return [][][]byte{frames[:1], frames[1:2], frames[2:]}
}

// outputs is how many a request has.
const outputs = 10

// row is one output, total the result, of floor and product alike.
type row struct {
	Row    int    `json:"row"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

type total struct {
	Rows int `json:"rows"`
}

func newRow(i int) row { return row{i, "invoice 2026-03/0017, consolidated", "exported"} }

func begin(m []byte, kind, id string) []byte {
	m = append(append(m, `{"type":"`...), kind...)
	m = append(append(m, `","request_id":"`...), id...)
	return append(m, '"')
}

func number(m []byte, key string, n int) []byte {
	m = append(append(append(m, ',', '"'), key...), '"', ':')
	return strconv.AppendInt(m, int64(n), 10)
}

func stamp(m []byte) []byte {
	m = append(m, `,"timestamp":"`...)
	return append(time.Now().UTC().AppendFormat(m, "2006-01-02T15:04:05.000Z"), '"')
}
