package dynamolog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// errMalformed says that bytes are not what the encoder wrote.
var errMalformed = errors.New("its content is malformed")

// decoder reads what an encoder appended. After the first value that is not there it returns
// zero values, and fails at the end.
type decoder struct {
	b   []byte
	bad bool
}

// finish returns errMalformed unless all was there, and nothing more.
func (r *decoder) finish() error {
	if r.bad || len(r.b) > 0 {
		return errMalformed
	}
	return nil
}

func (r *decoder) fail() {
	r.bad = true
	r.b = nil
}

func (r *decoder) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *decoder) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// small reads a number that must fit into an int.
func (r *decoder) small() int {
	n := r.uint()
	if n > math.MaxInt32 {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *decoder) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *decoder) text() string { return string(r.take(r.uint())) }

func (r *decoder) raw() json.RawMessage {
	n := r.uint()
	if n == 0 {
		return nil
	}
	return json.RawMessage(r.take(n - 1))
}

func (r *decoder) float() float64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func (r *decoder) bool() bool {
	b := r.take(1)
	switch {
	case b == nil:
		return false
	case b[0] > 1:
		r.fail()
	}
	return b[0] == 1
}

func (r *decoder) time() time.Time {
	if !r.bool() {
		return time.Time{}
	}
	seconds, nano := r.int(), r.small()
	if nano >= int(time.Second) {
		r.fail()
	}
	return time.Unix(seconds, int64(nano)).UTC()
}

func (r *decoder) kind() progress.Kind {
	code := r.uint()
	list := kinds()
	switch {
	case code == 0:
		return progress.Kind(r.text())
	case code > uint64(len(list)):
		r.fail()
		return ""
	}
	return list[code-1]
}

func (r *decoder) failure() *progress.Failure {
	if !r.bool() {
		return nil
	}
	return &progress.Failure{Code: r.text(), Message: r.text(), Details: r.raw(), RetryAfter: time.Duration(r.int())}
}

func (r *decoder) request() *progress.Request {
	q := &progress.Request{Action: r.text(), Payload: r.raw()}
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return q
	}
	if n > 0 {
		q.Metadata = make(map[string]string, n)
	}
	for range n {
		k := r.text()
		q.Metadata[k] = r.text()
	}
	q.Timeout = time.Duration(r.int())
	return q
}

func (r *decoder) event() *progress.Event {
	e := &progress.Event{}
	has := r.uint()
	e.Kind = r.kind()
	if has&hasAttempt != 0 {
		e.Attempt = int(r.int())
	}
	if has&hasTime != 0 {
		e.Time = r.time()
	}
	if has&hasRequest != 0 {
		e.Request = r.request()
	}
	if has&hasIndex != 0 {
		e.Index = int(r.int())
	}
	if has&hasData != 0 {
		e.Data = r.raw()
	}
	e.Success, e.Short = has&isSuccess != 0, has&isShort != 0
	if has&hasError != 0 {
		e.Error = r.failure()
	}
	if has&hasReason != 0 {
		e.Reason = r.text()
	}
	if has&hasDelay != 0 {
		e.Delay = time.Duration(r.int())
	}
	return e
}

// decodeEvents reads the events of a chunk.
func decodeEvents(c *chunk, b []byte) ([]*progress.Event, error) {
	r := &decoder{b: b}
	var list []*progress.Event
	for i := range c.count {
		e := r.event()
		if r.bad {
			break
		}
		e.Seq, e.Record = c.first+uint64(i), c.record
		list = append(list, e)
	}
	return list, r.finish()
}

func decodeChunk(b []byte) (chunk, error) {
	r := &decoder{b: b}
	c := chunk{where: r.small(), record: r.text(), first: r.uint(), count: r.small()}
	if r.bad || c.where > inBlob || c.first == 0 || c.count == 0 || c.first+uint64(c.count) < c.first {
		return c, errMalformed
	}
	if c.where == inline {
		var err error
		c.size = len(r.b)
		c.events, err = decodeEvents(&c, r.b)
		return c, err
	}
	c.size, c.parts = r.small(), r.small()
	return c, r.finish()
}

func decodeSegment(b []byte) ([]chunk, error) {
	r := &decoder{b: b}
	var list []chunk
	for len(r.b) > 0 {
		part := r.take(r.uint())
		if r.bad {
			break
		}
		c, err := decodeChunk(part)
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && list[n-1].last()+1 != c.first {
			return nil, errMalformed
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errMalformed
	}
	return list, r.finish()
}

func decodeState(b []byte) (progress.State, error) {
	r := &decoder{b: b}
	s := progress.State{
		Action: r.text(), Digest: r.text(), Group: r.text(), Created: r.time(), Phase: r.kind(),
		Attempt: int(r.int()), Used: int(r.int()), Nonce: r.text(), Started: r.time(), Outputs: int(r.int()),
		Reason: r.text(), Error: r.failure(), Delay: time.Duration(r.int()), Resume: int(r.int()), Checkpoint: r.raw(),
	}
	return s, r.finish()
}

func decodeProgress(b []byte) (*progress.Progress, error) {
	r := &decoder{b: b}
	p := &progress.Progress{
		Attempt: int(r.int()), Rev: r.uint(), Beat: r.uint(), Percentage: r.float(), Message: r.text(), Metadata: r.raw(), Time: r.time(),
	}
	return p, r.finish()
}
