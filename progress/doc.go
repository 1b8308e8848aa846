// Package progress holds what a request's life is recorded in: its [Event]s, its newest
// [Progress], and the [Log] that stores them.
//
// Handlers see of it only the [Reporter] they report to; tests of handlers use [Discard] or a
// [Recorder]. Adapters for stores implement [Log] and prove it with package logtest.
package progress
