// Package websocket serves requests over WebSocket: the protocol in docs/protocol.md, and
// clients of the older system and tools like wscat, which don't say hello.
//
//	h := websocket.NewHandler(router, transport.WithAuthenticator(authenticate))
//	mux.Handle("/ws", h)
//
// On shutdown, first drain the router, then the handler, then the HTTP server, which by
// itself neither knows nor waits for WebSockets:
//
//	router.Shutdown(ctx)
//	h.Shutdown(ctx)
//	server.Shutdown(ctx)
//
// A connection costs little while nothing happens on it: one goroutine that reads, and no
// timer. A goroutine that writes exists while there is something to write.
package websocket
