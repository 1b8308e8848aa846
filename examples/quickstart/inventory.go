package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2"
)

// Inventory is the handler. Estimated at a minute, it is queued, and runs while whoever asked
// for it may come and go.
type Inventory struct{ files fs.FS }

type Params struct {
	Dir string `json:"dir"` // within the directory that is served

	// Seconds spreads the work over at least that time, so that there is something to watch.
	Seconds float64 `json:"seconds,omitempty"`
}

// Directory is a partial output: there is one for each directory that is done.
type Directory struct {
	Dir   string `json:"dir"`
	Files int    `json:"files"`
	Lines int    `json:"lines"`
}

type Totals struct {
	Files int    `json:"files"`
	Lines int    `json:"lines"`
	Bytes int    `json:"bytes"`
	CSV   string `json:"csv"`
}

func (h *Inventory) EstimatedDuration() time.Duration { return time.Minute }

func (h *Inventory) Validate(req *streamer.Request) error {
	var in Params
	if err := json.Unmarshal(req.Payload, &in); err != nil || !fs.ValidPath(in.Dir) {
		return streamer.NewError(streamer.ErrCodeValidation, `want {"dir":"net/http"}: a path without "..", "." for all`)
	}
	if in.Seconds < 0 || in.Seconds > 600 {
		return streamer.NewError(streamer.ErrCodeValidation, fmt.Sprintf(`"seconds" is %v: want 0 to 600`, in.Seconds))
	}
	if info, err := fs.Stat(h.files, in.Dir); err != nil || !info.IsDir() {
		return streamer.NewError(streamer.ErrCodeNotFound, "there is no directory "+in.Dir)
	}
	return nil
}

func (h *Inventory) ProcessWithProgress(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	var in Params
	if err := json.Unmarshal(req.Payload, &in); err != nil {
		return nil, err
	}
	start := time.Now()
	p.Report(0, "looking for files")
	names, err := h.list(ctx, in.Dir)
	if err != nil {
		return nil, err
	}
	// The request names the file, so that a second attempt writes the same one anew.
	out, err := os.Create(filepath.Join(os.TempDir(), "inventory-"+req.ID+".csv"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w := csv.NewWriter(out)
	w.Write([]string{"file", "bytes", "lines", "sha256"})
	totals := Totals{CSV: out.Name()}
	var dir Directory
	for i, name := range names {
		done := float64(i+1) / float64(len(names))
		if err := pause(ctx, start, time.Duration(done*in.Seconds*float64(time.Second))); err != nil {
			return nil, err // canceled, out of time, or the service shuts down
		}
		size, lines, err := h.read(w, name)
		if err != nil {
			return nil, err
		}
		totals.Files, totals.Bytes, totals.Lines = totals.Files+1, totals.Bytes+size, totals.Lines+lines
		dir.Dir, dir.Files, dir.Lines = path.Dir(name), dir.Files+1, dir.Lines+lines
		if i+1 == len(names) || path.Dir(names[i+1]) != dir.Dir {
			if err := streamer.Output(ctx, dir); err != nil {
				return nil, err
			}
			dir = Directory{}
		}
		p.Report(100*done, fmt.Sprintf("%d of %d files", i+1, len(names)))
	}
	w.Flush()
	if err := errors.Join(w.Error(), out.Close()); err != nil {
		return nil, err
	}
	return &streamer.Result{RequestID: req.ID, Success: true, Data: totals}, nil
}

// list returns the files below dir, those of one directory next to each other.
func (h *Inventory) list(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(h.files, dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return errors.Join(err, ctx.Err())
	})
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(path.Dir(a), path.Dir(b)), cmp.Compare(a, b))
	})
	return names, err
}

// read adds a file's line to the CSV, and returns how many bytes and lines the file has.
func (h *Inventory) read(w *csv.Writer, name string) (size, lines int, err error) {
	data, err := fs.ReadFile(h.files, name)
	if err != nil {
		return 0, 0, err
	}
	lines = strings.Count(string(data), "\n")
	w.Write([]string{name, strconv.Itoa(len(data)), strconv.Itoa(lines), fmt.Sprintf("%x", sha256.Sum256(data))})
	return len(data), lines, nil
}

// pause waits until d has passed since start, and returns early with an error when ctx ends.
func pause(ctx context.Context, start time.Time, d time.Duration) error {
	if d -= time.Since(start); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
