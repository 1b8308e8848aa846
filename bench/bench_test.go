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
	roundtrip, _ := values["roundtrip"].(map[string]any)
	for _, clients := range []string{"c1", "c8"} {
		ratios, _ := roundtrip[clients].(map[string]any)
		positive(t, ratios, "ratio", "cpu_ratio")
	}
	positive(t, values, "idle_ws_kb", "resume_1000_ms", "report_ns", "reconnect_5000_s")

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
