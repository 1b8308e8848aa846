package awstest

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Weather is what chance does to calls: they are throttled, fail, take effect without an answer,
// happen twice or late, or in part. Its methods may be called concurrently.
type Weather struct {
	mu    sync.Mutex
	rng   *rand.Rand
	rate  float64
	late  time.Duration
	count map[string]int
}

// NewWeather returns the weather of a seed, which holds an answer back for late at most. It lets all
// pass until Set.
func NewWeather(seed uint64, late time.Duration) *Weather {
	return &Weather{rng: rand.New(rand.NewPCG(seed, 0)), late: late, count: make(map[string]int)}
}

// Set disturbs that part of all calls, 0 to 1, from now on.
func (w *Weather) Set(rate float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rate = rate
}

// Count returns how many calls were disturbed in the ways of these names, or in all. The names are
// throttled, unavailable, lost, twice, late, partly; of SQS also forgotten (a message that was
// removed is not), hidden (a message that was received is told to nobody) and stale (a receipt
// handle is another message's, or nobody's).
func (w *Weather) Count(names ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for name, count := range w.count {
		if len(names) == 0 {
			n += count
		}
		for _, wanted := range names {
			if name == wanted {
				n += count
			}
		}
	}
	return n
}

// ways are the ways to disturb a call, by name.
type ways map[string]func() Fault

// pick returns one of the ways to disturb a call, or nothing.
func (w *Weather) pick(names []string, ways ways) Fault {
	w.mu.Lock()
	if w.rng.Float64() >= w.rate {
		w.mu.Unlock()
		return Fault{}
	}
	name := names[w.rng.IntN(len(names))]
	w.count[name]++
	late := time.Duration(w.rng.Int64N(int64(w.late) + 1))
	w.mu.Unlock()
	switch name {
	case "throttled":
		return Fault{Status: http.StatusBadRequest, Code: "ThrottlingException"}
	case "unavailable":
		return Fault{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"}
	case "lost":
		return Fault{Lost: true}
	case "twice":
		return Fault{Twice: true}
	case "late":
		return Fault{Late: late}
	default:
		return ways[name]()
	}
}

// always are the ways to disturb any call.
var always = []string{"throttled", "unavailable", "lost", "twice", "late"}

// SQS is the weather between a client and SQS.
func (w *Weather) SQS(c Call) Fault {
	names := always
	switch c.Operation {
	case "SendMessageBatch":
		names = append(names[:len(names):len(names)], "partly")
	case "ChangeMessageVisibilityBatch":
		names = append(names[:len(names):len(names)], "partly", "stale")
	case "DeleteMessageBatch":
		names = append(names[:len(names):len(names)], "partly", "stale", "forgotten")
	case "ReceiveMessage":
		names = append(names[:len(names):len(names)], "hidden")
	}
	return w.pick(names, ways{
		"partly":    func() Fault { return partly(c.Body) },
		"forgotten": func() Fault { return Fault{Status: http.StatusOK, Answer: succeeded(c.Body)} },
		"stale":     func() Fault { return Fault{Ask: stale(c.Body)} },
		"hidden":    func() Fault { return Fault{Tell: func([]byte) []byte { return []byte("{}") }} },
	})
}

// DynamoDB is the weather between a client and DynamoDB.
func (w *Weather) DynamoDB(c Call) Fault {
	names := always
	if c.Operation == "BatchGetItem" {
		names = append(names[:len(names):len(names)], "partly")
	}
	return w.pick(names, ways{"partly": func() Fault { return Fault{Tell: unprocessed} }})
}

// batch is a batch of entries as SQS is asked for it, or what the answer says.
type batch struct {
	QueueURL   string           `json:"QueueUrl,omitempty"`
	Entries    []map[string]any `json:",omitempty"`
	Successful []map[string]any `json:",omitempty"`
	Failed     []map[string]any `json:",omitempty"`
}

// encode returns JSON of what was decoded from JSON.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// partly has the first entry of a batch fail, and the others not.
func partly(body []byte) Fault {
	var b batch
	if json.Unmarshal(body, &b) != nil || len(b.Entries) == 0 {
		return Fault{}
	}
	failed := []map[string]any{{"Id": b.Entries[0]["Id"], "Code": "InternalError", "SenderFault": false}}
	if b.Entries = b.Entries[1:]; len(b.Entries) == 0 {
		return Fault{Status: http.StatusOK, Answer: encode(batch{Failed: failed})}
	}
	return Fault{Ask: encode(b), Tell: func(answer []byte) []byte {
		var a batch
		if json.Unmarshal(answer, &a) != nil {
			return answer
		}
		a.Failed = append(a.Failed, failed...)
		return encode(a)
	}}
}

// succeeded returns the answer to a batch all of which succeeded.
func succeeded(body []byte) []byte {
	var asked, a batch
	if json.Unmarshal(body, &asked) != nil {
		return nil
	}
	for _, e := range asked.Entries {
		a.Successful = append(a.Successful, map[string]any{"Id": e["Id"]})
	}
	return encode(a)
}

// stale gives the first entry of a batch the receipt handle of the last or, where it is alone, one
// that never was.
func stale(body []byte) []byte {
	var b batch
	if json.Unmarshal(body, &b) != nil || len(b.Entries) == 0 {
		return body
	}
	handle := b.Entries[len(b.Entries)-1]["ReceiptHandle"]
	if len(b.Entries) == 1 {
		handle = "AQEB-of-nobody"
	}
	b.Entries[0]["ReceiptHandle"] = handle
	return encode(b)
}

// unprocessed keeps the second half of what was read back, as DynamoDB does when it is busy.
func unprocessed(answer []byte) []byte {
	var a struct {
		Responses       map[string][]map[string]any
		UnprocessedKeys map[string]map[string]any
	}
	if json.Unmarshal(answer, &a) != nil || len(a.UnprocessedKeys) > 0 {
		return answer
	}
	a.UnprocessedKeys = map[string]map[string]any{}
	for table, items := range a.Responses {
		half := len(items) / 2
		var keys []map[string]any
		for _, item := range items[half:] {
			keys = append(keys, map[string]any{"p": item["p"], "s": item["s"]})
		}
		a.Responses[table] = items[:half]
		if len(keys) > 0 {
			a.UnprocessedKeys[table] = map[string]any{"Keys": keys}
		}
	}
	return encode(a)
}
