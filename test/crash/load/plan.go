package load

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// plan is what is to be done with one request.
type plan struct {
	history.Request
	duplicates []time.Duration // further submits of the same body, after the first
	conflicts  []time.Duration // submits of another body
	cancels    []time.Duration
	probes     []time.Duration // tries of others to see it
	viewers    []time.Duration // after the acknowledgment
	crowded    bool            // somebody follows it together with others
	replays    int             // viewers after the end
}

// action is one kind of work of the lab.
type action struct {
	weight int
	lethal bool // it ends the worker's process
	make   func(p *plan, rng *rand.Rand)
}

const failure = "OUT_OF_PAPER"

// actions returns the mix.
func actions() []action {
	return []action{
		{weight: 20, make: func(p *plan, _ *rand.Rand) {
			p.work("echo", fmt.Sprintf(`{"id":%q,"n":12345678901234567890}`, p.ID))
			p.Expect.Result, p.Expect.Exact, p.Expect.Short = string(p.Payload), true, true
		}},
		{weight: 60, make: func(p *plan, rng *rand.Rand) { p.count(1+rng.IntN(20), rng.IntN(80), rng.IntN(200), rng.IntN(2) == 0) }},
		{weight: 6, make: func(p *plan, rng *rand.Rand) { p.count(3+rng.IntN(15), rng.IntN(40), 20_000, false) }},
		{weight: 10, make: func(p *plan, rng *rand.Rand) { p.count(30+rng.IntN(30), 60+rng.IntN(100), 10, rng.IntN(4) > 0) }},
		{weight: 2, make: func(p *plan, _ *rand.Rand) { p.count(0, 0, 0, false) }},
		{weight: 30, make: func(p *plan, rng *rand.Rand) { p.wait("sleep", rng.IntN(2500)) }},
		{weight: 6, make: func(p *plan, rng *rand.Rand) {
			p.wait("sleep", 6000+rng.IntN(6000))
			if rng.IntN(2) == 0 { // long before it ends by itself
				p.cancels = append(p.cancels, time.Duration(rng.IntN(1500))*time.Millisecond)
			}
		}},
		{weight: 8, make: func(p *plan, rng *rand.Rand) { p.wait("stubborn", 300+rng.IntN(4000)) }},
		{weight: 1, make: func(p *plan, rng *rand.Rand) {
			p.wait("stubborn", 14_000) // longer than a cancel is waited for
			p.cancels = append(p.cancels, time.Duration(500+rng.IntN(2000))*time.Millisecond)
		}},
		{weight: 4, make: func(p *plan, rng *rand.Rand) { p.fail(0, nil) }},
		{weight: 5, make: func(p *plan, rng *rand.Rand) { p.fail(20+rng.IntN(300), nil) }},
		{weight: 8, make: func(p *plan, rng *rand.Rand) {
			times := 1 + rng.IntN(2)
			p.fail(20+rng.IntN(300), &times)
		}},
		{weight: 3, make: func(p *plan, rng *rand.Rand) {
			p.work("flood", fmt.Sprintf(`{"reports":%d}`, 20_000+rng.IntN(200_000)))
			p.Expect.Result, p.Expect.Progress, p.Expect.Obeys = string(p.Payload), 100, true
		}},
		{weight: 4, make: func(p *plan, rng *rand.Rand) { p.work("big", fmt.Sprintf(`{"bytes":%d}`, rng.IntN(80_000))) }},
		{weight: 3, make: func(p *plan, _ *rand.Rand) {
			p.work("late", "")
			p.Expect.Result, p.Expect.Progress = `{"returned":true}`, 50
		}},
		{weight: 3, make: func(p *plan, _ *rand.Rand) {
			p.work("whoami", "")
			who := fmt.Sprintf(`"user_id":%q,"tenant_id":%q`, p.User, p.Tenant)
			p.Expect.Result = fmt.Sprintf(`{%s,"metadata":{%s}}`, who, who)
		}},
		{weight: 3, make: func(p *plan, _ *rand.Rand) {
			p.work("panic", "")
			p.Expect.Fails = "INTERNAL_ERROR"
		}},
		{weight: 1, lethal: true, make: func(p *plan, rng *rand.Rand) {
			p.work("crash", `{"attempts":1}`)
			p.Expect.Attempt = true
			if rng.IntN(4) == 0 {
				p.Payload = hopeless
			}
		}},
	}
}

// hopeless has every worker end that takes it.
var hopeless = json.RawMessage(`{"attempts":1000}`)

// despair changes the plan to a request that ends every worker that takes it, and that nobody
// cancels: it uses up its attempts.
func (p *plan) despair() {
	p.Action, p.Payload, p.Expect, p.cancels = "crash", hopeless, history.Expect{Attempt: true}, nil
}

func (p *plan) work(name, payload string) {
	p.Action = name
	if payload != "" {
		p.Payload = json.RawMessage(payload)
	}
}

func (p *plan) count(n, everyMS, bytes int, checkpoint bool) {
	p.work("count", fmt.Sprintf(`{"n":%d,"every_ms":%d,"bytes":%d,"checkpoint":%v}`, n, everyMS, bytes, checkpoint))
	p.Expect.Result, p.Expect.Outputs, p.Expect.Obeys = fmt.Sprintf(`{"n":%d}`, n), n, true
	if n > 0 {
		p.Expect.Progress = 100
	}
}

func (p *plan) wait(name string, ms int) {
	p.work(name, fmt.Sprintf(`{"ms":%d}`, ms))
	p.Expect.Result, p.Expect.Obeys = string(p.Payload), name == "sleep"
}

func (p *plan) fail(retryMS int, times *int) {
	p.work("fail", fmt.Sprintf(`{"code":%q,"message":"refill","retry_ms":%d}`, failure, retryMS))
	p.Expect.Fails, p.Expect.Retries = failure, retryMS > 0
	if times != nil {
		p.Payload = json.RawMessage(fmt.Sprintf(`{"code":%q,"message":"refill","retry_ms":%d,"times":%d}`, failure, retryMS, *times))
		p.Expect.Attempt = true
	}
}

// draw makes the plan of a request. Lethal actions are left out where nothing outlives a process.
func draw(rng *rand.Rand, id, tenant, user string, lethal bool) *plan {
	p := &plan{Request: history.Request{ID: id, Tenant: tenant, User: user}}
	ms := func(n int) time.Duration { return time.Duration(rng.IntN(n)) * time.Millisecond }
	list := actions()
	total := 0
	for _, a := range list {
		if !a.lethal || lethal {
			total += a.weight
		}
	}
	n := rng.IntN(total)
	for _, a := range list {
		if a.lethal && !lethal {
			continue
		}
		if n -= a.weight; n < 0 {
			a.make(p, rng)
			break
		}
	}
	if rng.IntN(4) == 0 {
		for range 1 + rng.IntN(3) {
			p.duplicates = append(p.duplicates, ms(1+rng.IntN(2)*1500))
		}
	}
	if rng.IntN(10) == 0 && p.Action != "echo" {
		p.conflicts = append(p.conflicts, ms(1+rng.IntN(2)*1000))
	}
	if rng.IntN(5) == 0 {
		for range 1 + rng.IntN(2) {
			p.cancels = append(p.cancels, ms(2000))
		}
	}
	if rng.IntN(3) == 0 {
		p.probes = append(p.probes, ms(1500))
	}
	for range max(0, rng.IntN(5)-1) {
		p.viewers = append(p.viewers, ms(1+rng.IntN(2)*2500))
	}
	p.crowded = rng.IntN(3) == 0
	p.replays = rng.IntN(3)
	return p
}

// other returns a body that does the same, and is not the same: the first name is written in
// another way.
func (p *plan) other() json.RawMessage {
	if len(p.Payload) == 0 {
		return json.RawMessage(`{"other":true}`)
	}
	rest, _ := strings.CutPrefix(string(p.Payload), `{"`)
	return json.RawMessage(fmt.Sprintf(`{"\u%04x%s`, rest[0], rest[1:]))
}
