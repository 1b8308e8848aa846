package sse

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxWait is how long an answer waits at most.
const maxWait = 60 * time.Second

// preferences are what a client prefers, as RFC 7240 has it.
type preferences struct {
	async  bool // respond-async
	waits  bool // wait was given
	wait   time.Duration
	header string // Preference-Applied, if both are honoured
}

// prefer reads the Prefer headers. Preferences that are not known or make no sense count as
// not given, and of those given twice the first counts, as the RFC says.
func prefer(h http.Header) preferences {
	var p preferences
	for _, line := range h.Values("Prefer") {
		for field := range strings.SplitSeq(line, ",") {
			field, _, _ = strings.Cut(field, ";") // parameters
			name, value, _ := strings.Cut(field, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				if d, ok := seconds(value); ok && !p.waits {
					p.waits, p.wait = true, d
				}
			}
		}
	}
	var applied []string
	if p.async {
		applied = append(applied, "respond-async")
	}
	if p.waits {
		applied = append(applied, "wait="+strconv.Itoa(int(p.wait/time.Second)))
	}
	p.header = strings.Join(applied, ", ")
	return p
}

// seconds reads a number of them, up to maxWait.
func seconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return maxWait, true // more than an int holds
	}
	return min(time.Duration(min(n, int(maxWait/time.Second)))*time.Second, maxWait), true
}

// applied says which preferences were honoured.
func (p preferences) applied(w http.ResponseWriter) {
	if p.header != "" {
		w.Header().Set("Preference-Applied", p.header)
	}
}
