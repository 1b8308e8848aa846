package streamer

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime/debug"
	"sync"
)

// encoders encode values as JSON without escaping for HTML.
type encoders struct{ pool sync.Pool }

type encoder struct {
	buf bytes.Buffer
	enc *json.Encoder
}

// maxKeptBuffer bounds the buffers that are kept for the next value.
const maxKeptBuffer = 64 << 10

// encode encodes v. JSON that is given is passed on byte for byte.
func (p *encoders) encode(v any) (data json.RawMessage, err error) {
	if raw, ok := v.(json.RawMessage); ok && raw != nil {
		if !json.Valid(raw) {
			return nil, errors.New("json.RawMessage holds no valid JSON")
		}
		return raw, nil
	}
	e, _ := p.pool.Get().(*encoder)
	if e == nil {
		e = new(encoder)
		e.enc = json.NewEncoder(&e.buf)
		e.enc.SetEscapeHTML(false)
	}
	defer func() {
		if v := recover(); v != nil {
			data, err = nil, &errPanic{value: v, stack: debug.Stack()}
		}
	}()
	if err := e.enc.Encode(v); err != nil {
		return nil, err // and the encoder, which may have kept part of the value, is not used again
	}
	data = bytes.Clone(bytes.TrimSuffix(e.buf.Bytes(), []byte{'\n'}))
	if e.buf.Cap() <= maxKeptBuffer {
		e.buf.Reset()
		p.pool.Put(e)
	}
	return data, nil
}
