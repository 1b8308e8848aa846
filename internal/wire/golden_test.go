package wire_test

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
	"github.com/pay-theory/streamer/v2/progress"
)

var update = flag.Bool("update", false, "write the golden conversations as the codec encodes them")

// TestConversationsAreWhatTheCodecWrites decodes every message of every conversation and
// encodes it again. A message that can't be decoded must be followed by the error that the
// server replies.
func TestConversationsAreWhatTheCodecWrites(t *testing.T) {
	for name, c := range wiretest.Load(t) {
		t.Run(name, func(t *testing.T) {
			samples := wiretest.Samples()
			for i, line := range c.Lines {
				if line.From == 0 {
					continue
				}
				shown := &c.Lines[i]
				encoded, refusal := recode(t, line.From, line.Expand(samples), name == "ancestor")
				if refusal != "" {
					shown, encoded = &c.Lines[i+1], refusal
				}
				if *update {
					shown.Text = wiretest.Contract(encoded, samples)
				}
				require.Equal(t, encoded, shown.Expand(samples))
			}
			if *update {
				require.NoError(t, c.Write())
			}
		})
	}
}

// recode decodes and encodes a message; refusal is the reply to one that can't be decoded.
func recode(t *testing.T, from wiretest.Side, message string, ancestor bool) (encoded, refusal string) {
	if from == wiretest.Server {
		m, err := wire.DecodeOutbound([]byte(message))
		require.NoError(t, err, message)
		return string(m.Append(nil)), ""
	}
	m, err := wire.DecodeInbound([]byte(message))
	if err != nil {
		var e *wire.Error
		require.ErrorAs(t, err, &e)
		reply := wire.Outbound{Type: wire.TypeError, RequestID: e.ID, Ref: e.Ref, Error: &progress.Failure{Code: "VALIDATION_ERROR", Message: e.Message}}
		return "", string(reply.Append(nil))
	}
	encoded = string(m.Append(nil))
	if ancestor || !known(m.Type) {
		return message, ""
	}
	return encoded, ""
}

func known(inbound string) bool { return protocol[wiretest.Client][inbound] != "" }

// protocol has the fields of every message, from docs/protocol.md. Fields of objects within
// are named after a dot.
var protocol = map[wiretest.Side]map[string]string{
	wiretest.Client: {
		"hello":   "v token caps client resume resume.id resume.epoch resume.after ref",
		"request": "id action payload metadata timeout_ms ref",
		"attach":  "id epoch after ref",
		"detach":  "id",
		"cancel":  "id reason ref",
		"auth":    "token ref",
		"ping":    "ref",
		"pong":    "",
	},
	wiretest.Server: {
		"welcome": "v session ping_interval_ms pong_timeout_ms auth_expires_at retention_ms limits limits.max_message_bytes " +
			"limits.max_inflight limits.max_attached caps ref",
		"acknowledgment": "request_id epoch seq status message duplicate timestamp ref",
		"response":       "request_id seq success data ref",
		"attached":       "request_id epoch action status attempt oldest last after ref",
		"status": "request_id seq status attempt outputs_from reason retry_after_ms error error.code error.message " +
			"error.retry_after_ms ref",
		"progress":      "request_id attempt percentage message metadata timestamp",
		"output":        "request_id seq attempt index data",
		"complete":      "request_id seq success result timestamp",
		"error":         "request_id seq error error.code error.message error.details error.retry_after_ms ref",
		"gap":           "request_id epoch after oldest last reason status attempt ref",
		"authenticated": "expires_at ref",
		"auth_expiring": "expires_in_ms",
		"goaway":        "reason reconnect_in_ms deadline_ms",
		"ping":          "",
		"pong":          "ref",
	},
}

func TestConversationsShowEveryFieldOfTheProtocolAndNoOther(t *testing.T) {
	seen := map[wiretest.Side]map[string]map[string]bool{wiretest.Client: {}, wiretest.Server: {}}
	for name, c := range wiretest.Load(t) {
		for _, line := range c.Messages() {
			var members map[string]any
			message := []byte(line.Expand(wiretest.Samples()))
			if name == "ancestor" && line.From == wiretest.Client || json.Unmarshal(message, &members) != nil {
				continue // older names, and what is no object
			}
			if line.From == wiretest.Client {
				if _, err := wire.DecodeInbound(message); err != nil {
					continue
				}
			}
			kind := members["type"].(string)
			if seen[line.From][kind] == nil {
				seen[line.From][kind] = map[string]bool{}
			}
			fields(members, "", seen[line.From][kind])
		}
	}
	for side, kinds := range protocol {
		for kind, list := range kinds {
			want := strings.Fields(list + " type")
			got := slices.Collect(maps.Keys(seen[side][kind]))
			require.ElementsMatch(t, want, got, "%c %s", side, kind)
		}
	}
	require.Len(t, seen[wiretest.Server], len(protocol[wiretest.Server]))
	require.Len(t, seen[wiretest.Client], len(protocol[wiretest.Client])+1, "with one that is unknown")
}

// fields adds the names of members, and of objects in the protocol's own members.
func fields(members map[string]any, prefix string, into map[string]bool) {
	for name, v := range members {
		into[prefix+name] = true
		switch name {
		case "limits", "error":
			fields(v.(map[string]any), name+".", into)
		case "resume":
			for _, entry := range v.([]any) {
				fields(entry.(map[string]any), name+".", into)
			}
		}
	}
}

func TestConversationsFillEveryFieldOfTheMessages(t *testing.T) {
	empty := map[string]bool{}
	note := func(v reflect.Value) {
		for i := range v.NumField() {
			name := v.Type().Name() + "." + v.Type().Field(i).Name
			if _, ok := empty[name]; !ok || !v.Field(i).IsZero() {
				empty[name] = v.Field(i).IsZero()
			}
		}
	}
	for _, c := range wiretest.Load(t) {
		for _, line := range c.Messages() {
			message := []byte(line.Expand(wiretest.Samples()))
			if line.From == wiretest.Server {
				m, err := wire.DecodeOutbound(message)
				require.NoError(t, err)
				note(reflect.ValueOf(*m))
			} else if m, err := wire.DecodeInbound(message); err == nil {
				note(reflect.ValueOf(*m))
			}
		}
	}
	require.Greater(t, len(empty), 40)
	for name, isEmpty := range empty {
		require.False(t, isEmpty, "%s is in no conversation", name)
	}
}

func TestExamplesInTheProtocolDocumentAreWhatTheCodecWrites(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	require.NoError(t, err)
	_, websocket, ok := strings.Cut(string(doc), "\n## WebSocket\n")
	require.True(t, ok)
	websocket, _, ok = strings.Cut(websocket, "\n## ")
	require.True(t, ok)
	toServer, toClient, ok := strings.Cut(websocket, "\n### Server to client\n")
	require.True(t, ok)

	for from, text := range map[wiretest.Side]string{wiretest.Client: toServer, wiretest.Server: toClient} {
		missing := maps.Clone(protocol[from])
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, `{"type":`) {
				continue
			}
			line = strings.TrimSpace(line)
			encoded, refusal := recode(t, from, line, false)
			require.Empty(t, refusal)
			require.Equal(t, line, encoded)
			var m struct{ Type string }
			require.NoError(t, json.Unmarshal([]byte(line), &m))
			delete(missing, m.Type)
		}
		require.Empty(t, missing, "not in docs/protocol.md")
	}
}
