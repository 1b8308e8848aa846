package dynamolog_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// Requests are compared with as many plain conditional writes of as many bytes, as a loop over
// the SDK makes them. Against an emulator both measure it more than anything else.
func BenchmarkRequest(b *testing.B) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("plain-%d", workers), func(b *testing.B) {
			s := start(b)
			table := s.create(b)
			spread(b, workers, func(n int) error {
				for i := range 8 {
					_, err := s.PutItem(b.Context(), &dynamodb.PutItemInput{
						TableName: &table, ConditionExpression: new("attribute_not_exists(p)"),
						Item: map[string]types.AttributeValue{
							"p": &types.AttributeValueMemberS{Value: fmt.Sprint("r", n)}, "s": &types.AttributeValueMemberS{Value: fmt.Sprint(i)},
							"d": &types.AttributeValueMemberB{Value: make([]byte, 800)},
						},
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
		for _, watched := range []bool{false, true} {
			b.Run(fmt.Sprintf("watched=%v-%d", watched, workers), func(b *testing.B) {
				s := start(b)
				c := newClient(s)
				l := &log{s.open(b, c, s.create(b)), b, nil}
				c.spent()
				spread(b, workers, func(n int) error {
					id := fmt.Sprint("r", n)
					if watched {
						stop, err := l.Watch(b.Context(), key(id), func(string) {})
						if err != nil {
							return err
						}
						defer stop()
					}
					return l.request(id)
				})
				spent := c.spent()
				b.ReportMetric(spent.writes/float64(b.N), "write-units/op")
				b.ReportMetric(spent.reads/float64(b.N), "read-units/op")
			})
		}
	}
}

// request appends 8 records: ten outputs, of which every second one is merged with the one
// before it.
func (l *log) request(id string) error {
	state, err := l.put(id, initial(), accepted())
	if err == nil {
		state, err = l.put(id, state, event(progress.Started))
	}
	for range 5 {
		if err == nil {
			state, err = l.put(id, state, output(100), output(100))
		}
	}
	if err == nil {
		_, err = l.put(id, state, event(progress.Completed))
	}
	return err
}

// spread runs f b.N times on so many goroutines.
func spread(b *testing.B, workers int, f func(n int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				if err := f(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkRead(b *testing.B) {
	s := start(b)
	table := s.create(b)
	l := &log{s.open(b, s, table), b, nil}
	state := l.start("r")
	for range 100 {
		state = l.must("r", state, output(100), output(100), output(100), output(100), output(100), output(100), output(100), output(100), output(100), output(100))
	}
	for name, after := range map[string]uint64{"1000-of-1000": 0, "20-of-1000": state.Last - 20, "nothing-new": state.Last} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				for at := after; ; {
					page, err := l.Read(b.Context(), key("r"), at, 256)
					require.NoError(b, err)
					at += uint64(len(page.Events))
					if at == state.Last {
						break
					}
				}
			}
		})
	}
}

// BenchmarkWatched measures how long another process's append takes to be notified, with so
// many other requests watched.
func BenchmarkWatched(b *testing.B) {
	const watched = 1000
	s := start(b)
	table := s.create(b)
	writer := &log{s.open(b, s, table), b, nil}
	l := s.open(b, s, table, dynamolog.WithPoll(50*time.Millisecond, 200*time.Millisecond))
	told := make(chan struct{}, 1)
	for i := range watched {
		stop, err := l.Watch(b.Context(), key(fmt.Sprint("r", i)), func(string) {
			if i == 0 {
				select {
				case told <- struct{}{}:
				default:
				}
			}
		})
		require.NoError(b, err)
		b.Cleanup(stop)
	}
	state := writer.start("r0")
	<-told
	for range b.N {
		for len(told) > 0 {
			<-told
		}
		state = writer.must("r0", state, output(100))
		<-told
	}
}
