package natslog_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

func TestInvalidOptionsAreErrors(t *testing.T) {
	js := connect(t, natstest.Start(t, nil).URL())
	for want, opt := range map[string]natslog.Option{
		`natslog: WithPrefix("a b"): letters, digits, - and _ are needed, in tokens separated by dots`: natslog.WithPrefix("a b"),
		`natslog: WithPrefix("a.*"): letters, digits, - and _ are needed, in tokens separated by dots`: natslog.WithPrefix("a.*"),
		`natslog: WithStreams("one", "one"): two names of letters, digits, - and _ are needed`:         natslog.WithStreams("one", "one"),
		`natslog: WithStreams("a.b", "c"): two names of letters, digits, - and _ are needed`:           natslog.WithStreams("a.b", "c"),
		"natslog: WithReplicas(0): 1 to 5 are possible":                                                natslog.WithReplicas(0),
		"natslog: WithStorage(7): there is no such storage":                                            natslog.WithStorage(7),
		"natslog: WithMaxBytes(0): more than 0 is needed, or -1":                                       natslog.WithMaxBytes(0),
		"natslog: WithMaxProgressBytes(0): more than 0 is needed":                                      natslog.WithMaxProgressBytes(0),
		"natslog: WithMaxSealed(-1): at least 0 is needed":                                             natslog.WithMaxSealed(-1),
		"natslog: WithCache(100): at least 65536 is needed":                                            natslog.WithCache(100),
	} {
		_, err := natslog.New(t.Context(), js, opt)
		require.EqualError(t, err, want)
	}
}

func TestStreamsOfAnotherShapeAreRefused(t *testing.T) {
	srv := natstest.Start(t, nil)
	js := connect(t, srv.URL())
	stay(t, js)
	made, err := natslog.New(t.Context(), js)
	require.NoError(t, err)
	require.NoError(t, made.Close())
	for stream, spoils := range map[string]map[string]func(*jetstream.StreamConfig){
		"STREAMER_LOG": {
			"subjects [other.*.*] where [streamer.log.*.*] is needed":                                          func(c *jetstream.StreamConfig) { c.Subjects = []string{"other.*.*"}; c.RePublish = nil },
			"discard DiscardOld where DiscardNew is needed":                                                    func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
			"retention WorkQueue where Limits is needed":                                                       func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy },
			"storage Memory where File is needed":                                                              func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
			"max_age 1h0m0s where 0s is needed":                                                                func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
			"max_bytes 1000000 where -1 is needed":                                                             func(c *jetstream.StreamConfig) { c.MaxBytes = 1_000_000 },
			"max_msgs_per_subject 1 where -1 is needed":                                                        func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
			"allow_direct false where true is needed":                                                          func(c *jetstream.StreamConfig) { c.AllowDirect = false },
			"allow_rollup_hdrs false where true is needed":                                                     func(c *jetstream.StreamConfig) { c.AllowRollup = false },
			"allow_msg_ttl false where true is needed":                                                         func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false },
			"persist_mode Async where Default is needed":                                                       func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
			"republish none where streamer.log.*.* to streamer.live.{{wildcard(1)}}.{{wildcard(2)}} is needed": func(c *jetstream.StreamConfig) { c.RePublish = nil },
			"streamer.live.{{wildcard(1)}}.{{wildcard(2)}}, headers only where":                                func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true },
		},
		"STREAMER_PROGRESS": {
			"storage File where Memory is needed":      func(c *jetstream.StreamConfig) { c.Storage = jetstream.FileStorage },
			"max_msgs_per_subject 5 where 1 is needed": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 },
			"discard DiscardNew where DiscardOld":      func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew },
			"max_bytes 1000 where 67108864 is needed":  func(c *jetstream.StreamConfig) { c.MaxBytes = 1000 },
			"max_age 0s where 1h0m0s is needed":        func(c *jetstream.StreamConfig) { c.MaxAge = 0 },
			"deny_purge true where false is needed":    func(c *jetstream.StreamConfig) { c.DenyPurge = true },
			"no_ack true where false is needed":        func(c *jetstream.StreamConfig) { c.NoAck = true },
		},
	} {
		good := info(t, js, stream).Config
		for want, spoil := range spoils {
			bad := good
			republish := *good.RePublish
			bad.RePublish = &republish
			spoil(&bad)
			require.NoError(t, js.DeleteStream(t.Context(), stream))
			_, err := js.CreateStream(t.Context(), bad)
			require.NoError(t, err, want)
			_, err = natslog.New(t.Context(), js)
			require.ErrorContains(t, err, "natslog: open: stream "+stream+" has ")
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "WithStreams")
			now := info(t, js, stream).Config
			require.Equal(t, bad.Subjects, now.Subjects, "the stream is as it was")
		}
		require.NoError(t, js.DeleteStream(t.Context(), stream))
	}
	open(t, js)
	require.Equal(t, jetstream.FileStorage, info(t, js, "STREAMER_LOG").Config.Storage)
}

func TestProcessesThatStartTogetherShareTheStreams(t *testing.T) {
	srv := natstest.Start(t, nil)
	errs := make(chan error, 8)
	for range cap(errs) {
		js := connect(t, srv.URL())
		go func() {
			l, err := natslog.New(t.Context(), js)
			if err == nil {
				err = l.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}

func TestOldServersAreRefused(t *testing.T) {
	for version, ok := range map[string]bool{
		"2.12.3": true, "2.12.10": true, "2.13.0": true, "2.15.2": true, "3.0.0": true, "v2.14.0-RC.1": true,
		"2.12.2": false, "2.11.99": false, "1.99.99": false, "2.12": false, "": false, "main": false,
	} {
		err := natslog.CheckVersion(version)
		if ok {
			require.NoError(t, err, version)
			continue
		}
		require.ErrorContains(t, err, "2.12.3 or newer is needed", version)
	}
}

func TestServersWithoutJetStreamAreNamed(t *testing.T) {
	off := natstest.Start(t, func(o *server.Options) { o.JetStream = false })
	_, err := natslog.New(t.Context(), connect(t, off.URL()))
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "JetStream")

	account := server.NewAccount("without")
	none := natstest.Start(t, func(o *server.Options) {
		o.Accounts = []*server.Account{account}
		o.Users = []*server.User{{Username: "u", Password: "p", Account: account}}
	})
	js, err := jetstream.New(none.Connect(t, nats.UserInfo("u", "p")))
	require.NoError(t, err)
	_, err = natslog.New(t.Context(), js)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "not enabled for this account")
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}},
		}}}
	})
	js, err := jetstream.New(srv.Connect(t, nats.UserInfo("u", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = natslog.New(ctx, js)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "the user may lack the permission to publish to $JS.API.>")
}

func TestLimitsThatAreTooLowAreNamed(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.JetStreamMaxMemory = 1 << 20 })
	_, err := natslog.New(t.Context(), connect(t, srv.URL()))
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "limits are too low")
	_, err = natslog.New(t.Context(), connect(t, srv.URL()), natslog.WithMaxProgressBytes(100_000), natslog.WithReplicas(3))
	require.ErrorContains(t, err, "STREAMER_LOG")
}

func TestConnectionsThatAreDownAreNamed(t *testing.T) {
	srv := natstest.Start(t, nil)
	js := connect(t, srv.URL())
	l, err := natslog.New(t.Context(), js)
	require.NoError(t, err)
	defer l.Close()
	srv.Stop()
	eventually(t, func() bool { return !js.Conn().IsConnected() }, "the client sees it")
	_, err = natslog.New(t.Context(), js)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "the connection is ")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = l.Tail(ctx, key("r"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	js.Conn().Close()
	_, err = l.Tail(t.Context(), key("r"))
	require.ErrorIs(t, err, progress.ErrUnavailable)
}

func TestTheServersClockCounts(t *testing.T) {
	var c natslog.Clock
	for _, off := range []time.Duration{time.Hour, -time.Hour, 0} {
		server := time.Now().Add(off)
		c.Heard(server, time.Now())
		require.WithinDuration(t, server, c.Now(), time.Second, "a clock that was changed is followed")
		c.Heard(server.Add(-time.Minute), time.Now().Add(-time.Minute))
		require.False(t, c.Now().Before(server), "an answer that took a minute tells nothing new")
		c.Heard(server.Add(10*time.Millisecond), time.Now())
		require.False(t, c.Now().Before(server.Add(10*time.Millisecond)), "one that was faster does")
	}
}
