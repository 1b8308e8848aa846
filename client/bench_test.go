package client_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
)

// BenchmarkRoundTrip measures client and service in one process: submit, ten outputs, result.
func BenchmarkRoundTrip(b *testing.B) {
	for _, concurrency := range []int{1, 64} {
		b.Run(fmt.Sprint("c", concurrency), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			serve(b, l, transport.WithLimits(transport.Limits{MessageRate: 1e6, MessageBurst: 1e6}))
			c, err := client.New("ws://" + l.Addr().String())
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, c.Close()) })
			_, err = c.Request(b.Context(), "echo", nil)
			require.NoError(b, err)
			work := make(chan struct{})
			done := make(chan error)
			for range concurrency {
				go func() {
					for range work {
						r, err := c.Submit(b.Context(), "count", counting{N: 10})
						if err == nil {
							for e := range r.Events(b.Context()) {
								if e.Kind == progress.Completed {
									break
								}
							}
						}
						done <- err
					}
				}()
			}
			start := time.Now()
			b.ReportAllocs()
			go func() {
				for range b.N {
					work <- struct{}{}
				}
				close(work)
			}()
			for range b.N {
				require.NoError(b, <-done)
			}
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "requests/s")
		})
	}
}
