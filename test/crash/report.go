package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// Report is what came of a run.
type Report struct {
	Totals     string // some lines of text, the seed last
	Violations []history.Violation
	Tame       []string // rare states that never came about, though the run is for them
	Dir        string   // where logs and histories are
}

// OK reports whether the run proves what it is for.
func (r *Report) OK() bool { return len(r.Violations) == 0 && len(r.Tame) == 0 }

const (
	maxKept = 200 // violations of which the text is kept
	maxFile = 40  // of which the history is written
)

// violate notes that something did not hold, and the history of the request that shows it.
func (w *world) violate(guarantee, what string, r *history.Request) {
	n := w.tally.violations.Add(1)
	if n > maxKept {
		return
	}
	where := ""
	if r != nil && n <= maxFile {
		where = w.write(n, guarantee, what, r)
	}
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	if r != nil {
		what = fmt.Sprintf("request %s of %s:%s (%s): %s", r.ID, r.Tenant, r.User, r.Action, what)
	}
	if where != "" {
		what += "; see " + where
	}
	w.tally.kept = append(w.tally.kept, history.Violation{Guarantee: guarantee, What: what})
	fmt.Fprintf(w.Out, "%v: VIOLATION of %s: %s\n", time.Since(w.began).Round(time.Millisecond), guarantee, what)
}

// write writes the whole history of a request into a file, whose name it returns.
func (w *world) write(n int64, guarantee, what string, r *history.Request) string {
	dir := filepath.Join(w.Dir, "violations")
	name := filepath.Join(dir, fmt.Sprintf("%03d-%s-%s.json", n, guarantee, r.ID))
	data, err := json.MarshalIndent(struct {
		Violation string
		Request   *history.Request
		Faults    []history.Fault
	}{guarantee + ": " + what, r, w.faultsSince(r)}, "", " ")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(name, data, 0o644)
	}
	if err != nil {
		return err.Error()
	}
	return name
}

// rare is a state that a run is for.
type rare struct {
	name string
	n    int64
	in   []fleet.Shape // where it must come about
}

func (w *world) rares() []rare {
	t, d := &w.tally, w.driver
	all := []fleet.Shape{fleet.Memory, fleet.Embedded, fleet.Amazon, fleet.Cluster}
	durable, fleets, cluster := all[1:], all[2:], all[3:]
	return []rare{
		{"attempts lost and redelivered", t.lost.Load(), durable},
		{"handlers fenced after a stop", t.fenced.Load(), fleets},
		{"attempts handed back", t.returned.Load(), fleets},
		{"attempts used up", t.exhausted.Load(), fleets},
		{"cancels that came too late", t.raced.Load(), all},
		{"submits that raced", t.twins.Load(), all},
		{"conflicts", t.conflicts.Load(), all},
		{"submits repeated after no answer", d.Seen.Retried.Load(), all},
		{"views resumed after a gateway's kill", d.Seen.Resumed.Load(), fleets},
		{"cuts within a frame", d.Cuts.InFrame.Load(), all},
		{"half-open connections", d.Cuts.WentQuiet.Load(), all},
		{"kills of the log's leader", t.leaders.Load(), cluster},
		{"losses of the quorum", t.quorums.Load(), cluster},
		{"submits refused meanwhile", t.refusals.Load(), cluster},
	}
}

// missing lists what the run is for and has not come about yet.
func (w *world) missing() (names []string) {
	if w.Tame {
		return nil
	}
	for _, x := range w.rares() {
		if x.n == 0 && slices.Contains(x.in, w.Shape) {
			names = append(names, x.name)
		}
	}
	if least := w.minCuts(); w.driver.Cuts.Total() < least {
		names = append(names, fmt.Sprintf("%d cuts", least))
	}
	return names
}

func (w *world) report() *Report {
	t, cuts := &w.tally, &w.driver.Cuts
	r := &Report{Dir: w.Dir, Tame: w.missing()}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("requests %d: acknowledged %d, completed %d, failed %d, canceled %d; handlers called %d times",
		t.requests.Load(), t.acked.Load(), t.completed.Load(), t.failed.Load(), t.canceled.Load(), t.calls.Load())
	line("submits %d, cancels %d, tries of others %d; connections %d with %d messages",
		t.submits.Load(), t.cancels.Load(), t.probes.Load(), t.segments.Load(), t.messages.Load())
	line("cuts %d: at a byte %d, at a time %d; before the first message %d, within a frame %d, of what the client sent %d, half open %d",
		cuts.Total(), cuts.AtByte.Load(), cuts.AtTime.Load(), cuts.InHead.Load(), cuts.InFrame.Load(), cuts.ToServer.Load(), cuts.WentQuiet.Load())
	line("faults %s; starts that failed %d", w.countFaults(), t.failedStarts.Load())
	var list []string
	for _, x := range w.rares() {
		list = append(list, fmt.Sprintf("%s %d", x.name, x.n))
	}
	line("rare: %s", strings.Join(list, ", "))
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.takeovers); n > 0 {
		slices.Sort(t.takeovers)
		line("from the kill of a worker to the next attempt: %d times, median %v, 99 %% within %v, at most %v (lease %v)", n,
			t.takeovers[n/2].Round(time.Millisecond), t.takeovers[n*99/100].Round(time.Millisecond), t.takeovers[n-1].Round(time.Millisecond), lease)
	}
	if t.refusal > 0 {
		line("without a quorum, submits were refused within %v", t.refusal.Round(time.Millisecond))
	}
	if len(r.Tame) > 0 {
		line("too tame, never seen: %s", strings.Join(r.Tame, ", "))
	}
	line("violations %d", t.violations.Load())
	line("seed %d", w.Seed)
	r.Totals, r.Violations = b.String(), t.kept
	return r
}

// countFaults lists how many faults there were of which kind.
func (w *world) countFaults() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for _, f := range w.faults {
		counts[f.Role+" "+f.Kind]++
	}
	var list []string
	for name, n := range counts {
		list = append(list, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(list)
	return fmt.Sprintf("%d: %s", len(w.faults), strings.Join(list, ", "))
}
