// Package streamer turns operations of a service that take longer than a request should into
// requests that are acknowledged at once, worked on in the background, and followed live: with
// progress, partial output, a result, and cancel. A dropped connection, a deploy or a crash
// loses nothing that the configured stores keep.
//
// A service registers a [Handler] for each action on a [Mux], mounts a transport
// (transport/websocket) as an http.Handler, and calls [Mux.Run]:
//
//	router := streamer.NewRouter()
//	router.Handle("export_data", &DataExportHandler{})
//	http.Handle("/ws", websocket.NewHandler(router, transport.WithAuthenticator(auth)))
//	go router.Run(ctx)
//
// # How it works
//
// Every request has one ordered log of events ([progress.Event]), and that log is the truth
// about it. The queue only moves tickets that say "this request wants a worker". Transports
// only show the log:
//
//	client ── request ──▶ transport ──▶ Submit ──┬─ append "accepted" ──▶ log
//	                                             └─ enqueue a ticket ───▶ queue
//	                                                                        │
//	  ┌─ append started, output …, completed ── handler ◀── Run ◀───────────┘
//	  ▼
//	 log ──▶ viewers: any number, from any event on, on any connection
//
// Short work (a handler whose estimate is up to the threshold, 5 s) runs within the submit and
// skips the queue; its log is just its end.
//
// # What holds
//
// After the acknowledgement a request reaches exactly one end, its last event, once a worker
// and the stores are there. A viewer gets every event after its cursor once and in order, or is
// told of a gap. Submitting an id again attaches to the request that has it. A worker that
// loses its lease is fenced: what it still says never enters the log. Handlers run at least
// once. Canceling, from anywhere, ends the handler's context and, after a grace, the request.
// docs/guarantees.md has each promise with its limits and its test.
//
// # Where to go on
//
//   - [Handler], [HandlerFunc], [Typed]: the work
//   - [Reporter], [Output], [Checkpoint], [Attempt]: what a handler can say while it runs
//   - [Error]: what clients see when it fails, and how to ask for another attempt
//   - [Option], [HandleOption]: queue, log, limits, attempts, timeouts
//   - [Mux.Submit], [Mux.Attach], [Mux.Cancel]: the same from Go code, without a transport
//   - packages progress/natslog, queue/natsqueue and natsembed: durable on one machine or many
//   - packages progress and queue: the contracts for adapters of other stores and brokers
package streamer
