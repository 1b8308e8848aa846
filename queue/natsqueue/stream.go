package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// oldest is the first server version whose JetStream is known to keep what it acknowledged
// in all that a Queue relies on.
const oldest = "2.12.3"

// checkServer returns why the server can't have the queue.
func checkServer(nc *nats.Conn) error {
	if !nc.IsConnected() {
		err := fmt.Errorf("the connection is not connected, its status is %s: see to the URL and the credentials, and that the server runs", strings.ToLower(nc.Status().String()))
		if last := nc.LastError(); last != nil {
			err = fmt.Errorf("%w; its last error: %w", err, last)
		}
		return err
	}
	if v := nc.ConnectedServerVersion(); older(v, oldest) {
		return fmt.Errorf("the server has version %s: %s or later is needed", v, oldest)
	}
	return nil
}

// older reports whether version a comes before b. What follows the numbers is ignored.
func older(a, b string) bool {
	x, y := strings.SplitN(a, ".", 3), strings.SplitN(b, ".", 3)
	for i := range min(len(x), len(y)) {
		m, n := number(x[i]), number(y[i])
		if m != n {
			return m < n
		}
	}
	return len(x) < len(y)
}

// number returns the number that s starts with.
func number(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}

// lanesKey is where a stream says how many lanes its tickets are spread over.
const lanesKey = "streamer-lanes"

// openStream returns the stream, which it makes when it is missing.
func openStream(ctx context.Context, js jetstream.JetStream, c config) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, c.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, c.newStream())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = js.Stream(ctx, c.stream) // another process was faster
		}
		if err != nil {
			return nil, fmt.Errorf("make stream %s: %w%s", c.stream, err, advice(err))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look for stream %s: %w%s", c.stream, err, advice(err))
	}
	return stream, c.check(stream.CachedInfo().Config)
}

// advice returns what to do about an error of the JetStream API, where it does not say so itself.
func advice(err error) string {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return ": enable JetStream on the server (-js), or see to its domain"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return ": enable JetStream for the account of this connection"
	case errors.Is(err, context.DeadlineExceeded):
		return ": the server does not answer; it may have no leader, or the user no permission to publish on $JS.API.> and to subscribe to _INBOX.>"
	case errors.As(err, &api) && api.ErrorCode == codeSubjectsOverlap:
		return ": another stream has the subjects; choose others with WithPrefix"
	case errors.As(err, &api) && (api.ErrorCode == codeAccountLimit || api.ErrorCode == codeNoStorage || api.ErrorCode == codeNoResources || api.ErrorCode == codeNoMemory):
		return ": raise the limits of the account or the server, or ask for less with WithMaxBytes and WithReplicas"
	}
	return ""
}

// newStream returns what a stream is made of.
func (c *config) newStream() jetstream.StreamConfig {
	s := jetstream.StreamConfig{
		Name:        c.stream,
		Description: "Tickets of requests that want a worker.",
		Subjects:    []string{c.subjects()},
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew,
		Replicas:    max(c.replicas, 1),
		MaxMsgs:     1_000_000,
		MaxBytes:    -1,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: c.subjects(), Destination: c.prefix + ".wake.{{wildcard(1)}}", HeadersOnly: true},
		Metadata:    map[string]string{lanesKey: strconv.Itoa(c.lanes)},
	}
	if c.storage != nil {
		s.Storage = *c.storage
	}
	if c.maxTickets > 0 {
		s.MaxMsgs = c.maxTickets
	}
	if c.maxBytes > 0 {
		s.MaxBytes = c.maxBytes
	}
	if c.maxPerScope > 0 {
		s.MaxMsgsPerSubject, s.DiscardNewPerSubject = c.maxPerScope, true
	}
	return s
}

// check returns where a stream that is there does not fit.
func (c *config) check(there jetstream.StreamConfig) error {
	want := c.newStream()
	var wrong []string
	differs := func(field string, is, wanted any, remedy string) {
		if a, b := fmt.Sprint(is), fmt.Sprint(wanted); a != b {
			wrong = append(wrong, fmt.Sprintf("%s is %s, wanted is %s (%s)", field, a, b, remedy))
		}
	}
	const (
		remake = "the stream is another's, or must be deleted, which loses its tickets: take another name with WithStream"
		edit   = "edit the stream"
		option = "edit the stream, or change the option"
	)
	differs("retention", there.Retention, want.Retention, remake)
	differs("subjects", there.Subjects, want.Subjects, "give the prefix that it was made with to WithPrefix")
	differs("lanes, its metadata "+lanesKey, strconv.Quote(there.Metadata[lanesKey]), strconv.Quote(want.Metadata[lanesKey]), "give the number that it was made with to WithLanes")
	differs("republish", republish(there.RePublish), republish(want.RePublish), edit)
	differs("discard", there.Discard, want.Discard, edit+": an old ticket must not make room for a new one")
	differs("persist_mode", there.PersistMode, want.PersistMode, remake)
	differs("max_age", there.MaxAge, want.MaxAge, edit+": a ticket must not vanish")
	differs("no_ack", there.NoAck, want.NoAck, edit)
	differs("sealed", there.Sealed, want.Sealed, remake)
	differs("deny_purge", there.DenyPurge, want.DenyPurge, remake)
	differs("mirror", there.Mirror != nil, false, remake)
	differs("sources", len(there.Sources), 0, edit)
	differs("subject_transform", there.SubjectTransform != nil, false, edit)
	if there.MaxConsumers > 0 && there.MaxConsumers < c.lanes {
		differs("max_consumers", there.MaxConsumers, c.lanes, edit+": each lane needs one")
	}
	if there.MaxMsgsPerSubject > 0 {
		differs("discard_new_per_subject", there.DiscardNewPerSubject, true, edit+": an old ticket must not make room for a new one")
	}
	if c.storage != nil {
		differs("storage", there.Storage, want.Storage, remake+", or change the option")
	}
	if c.replicas > 0 {
		differs("num_replicas", there.Replicas, want.Replicas, option)
	}
	if c.maxTickets > 0 {
		differs("max_msgs", there.MaxMsgs, want.MaxMsgs, option)
	}
	if c.maxBytes > 0 {
		differs("max_bytes", there.MaxBytes, want.MaxBytes, option)
	}
	if c.maxPerScope > 0 {
		differs("max_msgs_per_subject", there.MaxMsgsPerSubject, want.MaxMsgsPerSubject, option)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("stream %s does not fit: %s", c.stream, strings.Join(wrong, "; "))
	}
	return nil
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "off"
	}
	return fmt.Sprintf("%s to %s, headers only: %t", r.Source, r.Destination, r.HeadersOnly)
}
