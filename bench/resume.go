package main

import (
	"fmt"
	"time"
)

// resume returns how long a client takes to connect anew and to get all n outputs of a
// request that has ended.
func resume(server *child, id string, n int) (time.Duration, error) {
	start := time.Now()
	p, err := dial(server.addr, helloResuming(id, "", 0))
	if err != nil {
		return 0, err
	}
	defer p.close()
	var v viewing
	if err := p.follow(&v); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if v.outputs != n {
		return 0, fmt.Errorf("request %s was shown with %d outputs of %d", id, v.outputs, n)
	}
	return took, nil
}

// resumes returns the median of several resumes, each of a request of its own with n
// outputs: what was encoded for one viewer would serve the next.
func resumes(n, times int) (time.Duration, error) {
	server, err := spawn(roleProduct)
	if err != nil {
		return 0, err
	}
	defer server.close()
	var took []time.Duration
	for range times {
		id, err := server.finished(n)
		if err != nil {
			return 0, err
		}
		d, err := resume(server, id, n)
		if err != nil {
			return 0, err
		}
		took = append(took, d)
	}
	return median(took), nil
}

// longResume is a resume of very many events.
type longResume struct {
	took  time.Duration
	extra int64 // bytes resident above what the server held before
}

func resumeLong(n int) (longResume, error) {
	if n == 0 {
		return longResume{}, nil
	}
	server, err := spawn(roleProduct)
	if err != nil {
		return longResume{}, err
	}
	defer server.close()
	id, err := server.finished(n)
	if err != nil {
		return longResume{}, err
	}
	before, err := server.settle()
	if err != nil {
		return longResume{}, err
	}
	took, err := resume(server, id, n)
	if err != nil {
		return longResume{}, err
	}
	peak, err := server.peak()
	return longResume{took, peak - before}, err
}
