package natslog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

// oldest is the first version of nats-server that keeps what this package relies on.
const oldest = "2.12.3"

// progressAge is how long a progress is kept. A worker that lives writes one every third of a
// lease.
const progressAge = time.Hour

// logConfig is the stream for logs.
func (c *config) logConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        c.logStream,
		Description: "Streamer: the logs of requests",
		Subjects:    []string{c.prefix + ".log.*.*"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     c.storage,
		Replicas:    c.replicas,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    c.maxBytes,
		AllowDirect: true,
		AllowRollup: true,
		AllowMsgTTL: true,
		RePublish:   &jetstream.RePublish{Source: c.prefix + ".log.*.*", Destination: c.prefix + ".live.{{wildcard(1)}}.{{wildcard(2)}}"},
	}
}

// progressConfig is the stream for progress.
func (c *config) progressConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              c.progStream,
		Description:       "Streamer: the newest progress of requests",
		Subjects:          []string{c.prefix + ".progress.*.*.*"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.MemoryStorage,
		Replicas:          c.replicas,
		Discard:           jetstream.DiscardOld,
		MaxBytes:          c.progressBytes,
		MaxAge:            progressAge,
		MaxMsgsPerSubject: 1,
		AllowDirect:       true,
		RePublish:         &jetstream.RePublish{Source: c.prefix + ".progress.*.*.*", Destination: c.prefix + ".live.{{wildcard(1)}}.{{wildcard(2)}}"},
	}
}

// ensure creates a stream when it is missing, and returns an error when it is not as wanted.
func ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = js.Stream(ctx, want.Name) // another process was faster
		}
	}
	if err != nil {
		return nil, unusable(ctx, fmt.Sprintf("stream %s can't be opened or created", want.Name), err)
	}
	info := stream.CachedInfo()
	if err := compare(&info.Config, &want); err != nil {
		return nil, err
	}
	return info, nil
}

// unusable says what to do about a server that can't be used.
func unusable(ctx context.Context, what string, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	hint := ""
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		hint = "JetStream is not enabled for this account: give the account limits for it"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		hint = "the server runs without JetStream: start it with -js, or with a jetstream block in its configuration"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "no answer: the user may lack the permission to publish to $JS.API.> and to subscribe to its inbox, or a cluster has no leader"
	case errors.As(err, &api) && errors.Is(refusal(api), progress.ErrFull):
		hint = "the account's or the server's limits are too low for it: raise them, or lower WithMaxBytes, WithMaxProgressBytes or WithReplicas"
	}
	if hint != "" {
		return fmt.Errorf("%w: %s: %s: %w", progress.ErrUnavailable, what, hint, err)
	}
	return fmt.Errorf("%w: %s: %w", progress.ErrUnavailable, what, err)
}

// compare returns an error that names the first setting of a stream that is not as it has to
// be, or not as the options say.
func compare(have, want *jetstream.StreamConfig) error {
	must := []struct {
		name       string
		have, want any
	}{
		{"subjects", have.Subjects, want.Subjects},
		{"retention", have.Retention, want.Retention},
		{"storage", have.Storage, want.Storage},
		{"num_replicas", have.Replicas, want.Replicas},
		{"discard", have.Discard, want.Discard},
		{"max_bytes", have.MaxBytes, want.MaxBytes},
		{"max_age", have.MaxAge, want.MaxAge},
		{"max_msgs", unlimited(have.MaxMsgs), unlimited(want.MaxMsgs)},
		{"max_msgs_per_subject", unlimited(have.MaxMsgsPerSubject), unlimited(want.MaxMsgsPerSubject)},
		{"allow_direct", have.AllowDirect, want.AllowDirect},
		{"allow_rollup_hdrs", have.AllowRollup || !want.AllowRollup, true},
		{"allow_msg_ttl", have.AllowMsgTTL || !want.AllowMsgTTL, true},
		{"deny_purge", have.DenyPurge, false},
		{"sealed", have.Sealed, false},
		{"no_ack", have.NoAck, false},
		{"persist_mode", have.PersistMode, want.PersistMode},
		{"mirror", have.Mirror != nil, false},
		{"sources", len(have.Sources), 0},
		{"subject_transform", have.SubjectTransform != nil, false},
		{"republish", republish(have.RePublish), republish(want.RePublish)},
	}
	for _, m := range must {
		if !reflect.DeepEqual(m.have, m.want) {
			return fmt.Errorf("stream %s has %s %v where %v is needed: change the stream (nats stream edit), the options of natslog, or the stream's name by WithStreams",
				want.Name, m.name, m.have, m.want)
		}
	}
	return nil
}

func unlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "none"
	}
	s := r.Source + " to " + r.Destination
	if r.HeadersOnly {
		s += ", headers only"
	}
	return s
}

// checkVersion returns an error when a server is too old.
func checkVersion(version string) error {
	have, ok := parseVersion(version)
	want, _ := parseVersion(oldest)
	if !ok {
		return fmt.Errorf("the server's version %q can't be read: nats-server %s or newer is needed", version, oldest)
	}
	for i := range have {
		switch {
		case have[i] > want[i]:
			return nil
		case have[i] < want[i]:
			return fmt.Errorf("the server is nats-server %s: %s or newer is needed", version, oldest)
		}
	}
	return nil
}

// parseVersion reads major, minor and patch, and ignores what a pre-release adds.
func parseVersion(version string) (v [3]int, ok bool) {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(version, ".")
	if len(parts) != len(v) {
		return v, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}
