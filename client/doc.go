// Package client calls a streamer service from Go: it submits requests, follows their
// progress and partial outputs, and waits for their results.
//
//	c, err := client.New("wss://api.example.com/ws", client.WithTokenSource(token))
//	…
//	defer c.Close()
//	report, err := client.Call[Report](ctx, c, "generate_report", params)
//
// The URL says how: ws and wss are a WebSocket, http and https are calls and one event stream,
// for networks that let nothing else through. Over HTTP the connection is [Open] from the first
// answer or the first bytes of the stream on.
//
// A [Client] holds one connection for all requests. It connects on first use, and when the
// connection is lost while something is pending it connects again, for as long as it takes:
// requests that the server has not acknowledged are sent again under the same id, which
// starts them at most once, and all others are followed on from the last event seen. Callers
// notice nothing of that but the time it takes; [Client.State] shows it.
//
// The end of a context ends the waiting, not the request, unless [WithCancelOnContextEnd]
// asks for that. A request that nobody waits for any more goes on, and [Client.Attach] finds
// it again by its id, from any process.
//
// A request that failed, or a call that the server refused, is a [*streamer.Error]:
//
//	if e, ok := errors.AsType[*streamer.Error](err); ok && e.Code == streamer.ErrCodeNotFound {
//		…
//	}
package client
