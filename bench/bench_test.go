package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role))
	}
	os.Exit(m.Run())
}

// tinyPlan measures nothing of worth, but goes every way that the others go.
func tinyPlan() plan {
	return plan{
		rounds: 1, clients: []int{1, 8}, fill: 100, warm: 20 * time.Millisecond, span: 100 * time.Millisecond,
		idle: 100, resumed: 100, resumes: 1, long: 2000, reports: 1, reconnect: 100,
		streams: 100, viewers: []int{5, 20}, deliveries: 100, fans: 2, bursts: 1, callers: []int{1, 8}, submits: 1, calling: 100 * time.Millisecond, natsRounds: 1, natsTCP: true,
		watched: 100, ticks: 100, stored: 1000,
		awsTickets: 100, awsSlow: 20, awsUnits: 1, awsRounds: 1, awsBursts: 1, awsAtOnce: 8, awsFlow: true,
	}
}

func TestEveryMeasurementYieldsAValue(t *testing.T) {
	t.Parallel()
	r, err := measure(tinyPlan())
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r.summary())
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"roundtrip", "nats_roundtrip"} {
		roundtrip, _ := values[name].(map[string]any)
		for _, clients := range []string{"c1", "c8"} {
			ratios, _ := roundtrip[clients].(map[string]any)
			positive(t, ratios, "ratio", "cpu_ratio")
		}
	}
	positive(t, values, "idle_ws_kb", "resume_1000_ms", "report_ns", "reconnect_5000_s", "sse_idle_kb", "sse_fanout_ratio")
	submit, _ := values["submit"].(map[string]any)
	for _, scenario := range []string{"short_c1", "short_c8", "long_c1", "long_c8"} {
		ratios, _ := submit[scenario].(map[string]any)
		positive(t, ratios, "ratio", "cpu_ratio")
	}

	aws, _ := values["aws"].(map[string]any)
	positive(t, aws, "sqs_calls_per_1000", "write_units", "cpu_ratio")

	var table strings.Builder
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
}

func positive(t *testing.T, values map[string]any, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if v, _ := values[key].(float64); v <= 0 {
			t.Errorf("%s is %v in %v", key, values[key], values)
		}
	}
}

func TestAViewerNoticesWhatIsMissingOrWrong(t *testing.T) {
	t.Parallel()
	ack := `{"type":"acknowledgment","request_id":"r","epoch":"e","seq":1,"status":"queued"}`
	output := `{"type":"output","request_id":"r","seq":2,"attempt":1,"index":0,"data":{}}`
	for name, batch := range map[string]string{
		"a hole":             ack + "\n" + `{"type":"output","request_id":"r","seq":3,"attempt":1,"index":0,"data":{}}`,
		"an old request":     `{"type":"acknowledgment","request_id":"r","epoch":"e","seq":1,"status":"completed","duplicate":true}`,
		"a repeat":           ack + "\n" + ack,
		"an output too few":  ack + "\n" + `{"type":"output","request_id":"r","seq":2,"attempt":1,"index":1,"data":{}}`,
		"an output twice":    ack + "\n" + output + "\n" + `{"type":"output","request_id":"r","seq":3,"attempt":1,"index":0,"data":{}}`,
		"an end with no seq": ack + "\n" + `{"type":"complete","request_id":"r","success":true}`,
		"an error":           ack + "\n" + `{"type":"error","request_id":"r","seq":2,"error":{}}`,
		"a gap":              `{"type":"gap","request_id":"r","epoch":"e","after":1,"oldest":3,"last":4}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var v viewing
			if err := v.see([]byte(batch)); err == nil {
				t.Errorf("nothing was noticed in\n%s", batch)
			}
		})
	}
	var v viewing
	if err := v.see([]byte(ack + "\n" + output)); err != nil || v.outputs != 1 {
		t.Errorf("a sound batch: %d outputs, %v", v.outputs, err)
	}
}

func TestACallerNoticesAWrongAnswer(t *testing.T) {
	t.Parallel()
	c := caller{action: actionShort, kind: "response"}
	sound := `{"type":"response","request_id":"r","seq":1,"success":true,"data":{"rows":3}}`
	if err := c.check("r", 200, []byte(sound)); err != nil {
		t.Error(err)
	}
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"another status":  {202, sound},
		"another type":    {200, strings.Replace(sound, "response", "acknowledgment", 1)},
		"another request": {200, strings.Replace(sound, `"r"`, `"s"`, 1)},
		"another result":  {200, strings.Replace(sound, "3", "2", 1)},
		"nothing":         {200, ""},
	} {
		if err := c.check("r", answer.status, []byte(answer.body)); err == nil {
			t.Errorf("%s: nothing was noticed in %s", name, answer.body)
		}
	}
}
