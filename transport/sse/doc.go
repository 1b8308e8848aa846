// Package sse serves requests over plain HTTP and server-sent events, for whoever does not
// open a WebSocket: curl, a REST client that wants 202 and a URL, a browser behind a proxy. The
// protocol is in docs/protocol.md.
//
//	h := sse.NewHandler(router, transport.WithAuthenticator(authenticate))
//	mux.Handle("/api/", http.StripPrefix("/api", h))
//
// serves POST /api/requests, GET and DELETE /api/requests/{id}, GET /api/requests/{id}/events, GET
// /api/events and POST /api/tickets. The handler knows the paths from /requests, /events and
// /tickets on; what is before them is to be stripped.
//
// The server's ReadHeaderTimeout and IdleTimeout should be set. Its WriteTimeout does not cut
// streams: each write has its own deadline. Middleware in front must let writes be flushed,
// that is, its http.ResponseWriter needs an Unwrap method.
//
// On shutdown, first drain the router, then the handler, then the HTTP server, which would wait
// for streams until they end:
//
//	router.Shutdown(ctx)
//	h.Shutdown(ctx)
//	server.Shutdown(ctx)
//
// A stream costs the goroutine and buffers of its HTTP request. It holds no events: it keeps how
// far its client was shown each log, and reads on when the client has taken what was written.
package sse
