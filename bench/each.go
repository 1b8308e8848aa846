package main

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// each runs f for 0 to n-1 at once, waits for all, and returns the first error.
func each(n int, f func(i int) error) error {
	failed := make(chan error)
	for i := range n {
		go func() { failed <- f(i) }()
	}
	var err error
	for range n {
		err = first(err, <-failed)
	}
	return err
}

// dialers is how many connections are opened at a time.
const dialers = 64

// limited runs f for 0 to n-1, as many at a time as there are dialers, until one fails.
func limited(n int, f func(i int) error) error {
	var next atomic.Int64
	return each(dialers, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return nil
			}
			if err := f(i); err != nil {
				next.Store(int64(n))
				return err
			}
		}
	})
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// median returns the middle of values, the upper one of two.
func median[T cmp.Ordered](values []T) T {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}
