// Package limit counts and slows down what clients do.
package limit

import (
	"sync"
	"time"
)

// Bucket lets through a burst of events at once, and a rate of them in the long run. The zero
// value is a full bucket. It is not safe for concurrent use.
type Bucket struct {
	missing float64 // of a full bucket, at the time of
	at      time.Time
}

// Take reports whether one more event is within rate (per second, more than 0) and burst (at
// least 1). If not it returns how long it takes until one is.
func (b *Bucket) Take(now time.Time, rate float64, burst int) (wait time.Duration, ok bool) {
	b.missing = max(0, b.missing-rate*now.Sub(b.at).Seconds())
	b.at = now
	if over := b.missing + 1 - float64(burst); over > 0 {
		return max(time.Duration(over/rate*float64(time.Second)), time.Millisecond), false
	}
	b.missing++
	return 0, true
}

// Gate counts who is inside by a key. The zero value is an empty gate. It is safe for
// concurrent use.
type Gate[K comparable] struct {
	mu     sync.Mutex
	inside map[K]int
}

// Enter lets one more with this key inside unless there are limit of them.
func (g *Gate[K]) Enter(key K, limit int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[key] >= limit {
		return false
	}
	if g.inside == nil {
		g.inside = make(map[K]int)
	}
	g.inside[key]++
	return true
}

// Leave takes back one Enter.
func (g *Gate[K]) Leave(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[key] > 1 {
		g.inside[key]--
	} else {
		delete(g.inside, key)
	}
}

// Rates holds a bucket for each key. The zero value is empty. It is safe for concurrent use,
// and holds no more keys than twice those that are not at rest, or a thousand.
type Rates[K comparable] struct {
	mu      sync.Mutex
	buckets map[K]*Bucket
	sweep   int // at which number of buckets those at rest are forgotten
}

const fewBuckets = 1000

// Take is [Bucket.Take] on the key's bucket.
func (r *Rates[K]) Take(key K, now time.Time, rate float64, burst int) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[key]
	if b == nil {
		if len(r.buckets) >= max(r.sweep, fewBuckets) {
			r.forget(now, rate)
		}
		if r.buckets == nil {
			r.buckets = make(map[K]*Bucket)
		}
		b = new(Bucket)
		r.buckets[key] = b
	}
	return b.Take(now, rate, burst)
}

// forget removes the buckets that are full again, which is what a new one is.
func (r *Rates[K]) forget(now time.Time, rate float64) {
	for key, b := range r.buckets {
		if b.missing <= rate*now.Sub(b.at).Seconds() {
			delete(r.buckets, key)
		}
	}
	r.sweep = 2 * len(r.buckets)
}
