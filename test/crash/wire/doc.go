// Package wire speaks the protocol of docs/protocol.md as a client does, over WebSocket, event
// streams and plain HTTP, on connections that are cut at random bytes.
package wire
