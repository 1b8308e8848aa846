package natsembed

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// logger takes the server's log. It notices what the server says nowhere else: why it can't
// start, and that a store can't be written.
type logger struct {
	to      func() *slog.Logger
	notices bool // are logged
	fatal   atomic.Pointer[string]
	damage  atomic.Pointer[string]
	last    atomic.Pointer[string]
}

var _ server.Logger = (*logger)(nil)

func newLogger(c config) *logger {
	if c.logger == nil {
		return &logger{to: slog.Default}
	}
	return &logger{to: func() *slog.Logger { return c.logger }, notices: true}
}

// reset forgets what a server before said.
func (l *logger) reset() {
	l.fatal.Store(nil)
	l.damage.Store(nil)
	l.last.Store(nil)
}

// lastWords returns the last warning or error.
func (l *logger) lastWords() string {
	if s := l.last.Load(); s != nil {
		return *s
	}
	return ""
}

func (l *logger) Noticef(format string, v ...any) {
	if l.notices {
		l.to().Info(said, "text", fmt.Sprintf(format, v...))
	}
}

func (l *logger) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.last.Store(&text)
	l.to().Warn(said, "text", text)
}

func (l *logger) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.last.Store(&text)
	for _, sign := range damages {
		if strings.Contains(text, sign) {
			l.damage.CompareAndSwap(nil, &text)
		}
	}
	l.to().Error(said, "text", text)
}

// Fatalf is what the server calls when it can't start. Unlike the server's own logger it does
// not end the process.
func (l *logger) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &text)
	l.to().Error(said, "text", text)
}

func (l *logger) Debugf(string, ...any) {}
func (l *logger) Tracef(string, ...any) {}

// said is the message of all entries.
const said = "nats server says"

// damages are what the server's errors contain when a store can't be written: it refuses all
// writes from then on.
var damages = []string{"Critical write error", "will be DISABLED"}

// connError takes what the client says that nobody waits for.
func (l *logger) connError(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	l.to().Warn("nats connection error", "error", err, "subject", subject)
}
