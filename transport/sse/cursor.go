package sse

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

const (
	maxFollowed = 64 // requests in a stream, so that its cursors fit into a header
	maxSeq      = 1<<53 - 1
	maxEpoch    = 64 // bytes
)

// cursors reads from where a client wants to be shown which requests. The error is for it.
func cursors(what resource, id string, r *http.Request) ([]wire.Cursor, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query makes no sense: it must be encoded as a form is")
	}
	last, err := lastEventID(r.Header)
	if err != nil {
		return nil, err
	}
	if what == requestEvents {
		c, err := one(id, query, last)
		return []wire.Cursor{c}, err
	}
	return many(query["r"], last)
}

// lastEventID returns the header, "" when there is none.
func lastEventID(h http.Header) (string, error) {
	switch values := h.Values("Last-Event-ID"); len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", fmt.Errorf("there is more than one Last-Event-ID")
	}
}

// one reads the cursor of a stream of one request: epoch and after in the query, epoch:seq in
// the header, which wins.
func one(id string, query url.Values, last string) (wire.Cursor, error) {
	if last != "" {
		c, err := parse(id + ":" + last)
		if err != nil || !strings.Contains(last, ":") {
			return c, fmt.Errorf("Last-Event-ID %q: want epoch:seq, as in the id of an event", clip(last))
		}
		return c, nil
	}
	for _, name := range []string{"after", "epoch"} {
		if len(query[name]) > 1 {
			return wire.Cursor{}, fmt.Errorf("there is more than one %s in the query", name)
		}
	}
	text := id + ":" + query.Get("epoch")
	if after := query.Get("after"); after != "" {
		text += ":" + after
	}
	c, err := parse(text)
	if err != nil {
		return c, fmt.Errorf("after=%q, epoch=%q: want the seq and the epoch of an event", clip(query.Get("after")), clip(query.Get("epoch")))
	}
	return c, nil
}

// many reads the cursors of a stream of many requests: one in each r of the query, all that
// have moved in the header.
func many(list []string, last string) ([]wire.Cursor, error) {
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("no request is named: want ?r=id, r=id:epoch or r=id:epoch:after, once for each")
	case len(list) > maxFollowed:
		return nil, fmt.Errorf("%d requests are named, a stream takes %d", len(list), maxFollowed)
	}
	all := make([]wire.Cursor, 0, len(list))
	place := make(map[string]int, len(list))
	for _, text := range list {
		c, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("r=%q: want id, id:epoch or id:epoch:after", clip(text))
		}
		if _, twice := place[c.ID]; twice {
			return nil, fmt.Errorf("r=%q: the request is named twice", clip(text))
		}
		place[c.ID] = len(all)
		all = append(all, c)
	}
	if last == "" {
		return all, nil
	}
	for i, text := range strings.Split(last, ",") {
		c, err := parse(text)
		if err != nil || i >= maxFollowed {
			return nil, fmt.Errorf("Last-Event-ID %q: want what the id of an event was, id:epoch:seq with commas between", clip(last))
		}
		if i, named := place[c.ID]; named {
			all[i] = c
		}
	}
	return all, nil
}

// parse reads id, id:epoch or id:epoch:after.
func parse(text string) (wire.Cursor, error) {
	id, rest, _ := strings.Cut(text, ":")
	epoch, digits, numbered := strings.Cut(rest, ":")
	c := wire.Cursor{ID: id, Epoch: epoch}
	if !wire.ValidID(id) || epoch != "" && (!wire.ValidID(epoch) || len(epoch) > maxEpoch) {
		return c, strconv.ErrSyntax
	}
	if !numbered {
		return c, nil
	}
	if strings.Trim(digits, "0123456789") != "" {
		return c, strconv.ErrSyntax
	}
	after, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || after > maxSeq {
		return c, strconv.ErrRange
	}
	c.After = after
	return c, nil
}
