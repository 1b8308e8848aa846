// Package proxy has tests of the configurations in docs/proxies, with the programs that they are
// for in front of a real server. It is a module of its own, so that the library's tests need
// neither nginx nor Caddy.
package proxy
