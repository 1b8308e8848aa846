package natslog

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/pay-theory/streamer/v2/progress"
)

// maxToken bounds a token of a subject. What would be longer is replaced by its hash.
const maxToken = 160

// path names a log within subjects: its key's scope and id, each as one token.
func path(key progress.Key) string { return token(key.Scope) + "." + token(key.ID) }

// token makes any string a token of a NATS subject, different strings different tokens. What
// is safe stays readable; other bytes become = and two hexadecimal digits. The empty string is
// a lone =, and what is too long =H and its hash.
func token(s string) string {
	if s == "" {
		return "="
	}
	n := len(s)
	for i := range len(s) {
		if !safe(s[i]) {
			n += 2
		}
	}
	if n == len(s) && n <= maxToken {
		return s
	}
	if n > maxToken {
		sum := sha256.Sum256([]byte(s))
		return "=H" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, n)
	for i := range len(s) {
		if c := s[i]; safe(c) {
			b = append(b, c)
		} else {
			b = append(b, '=', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// safe reports whether a byte means nothing in a subject, a header or a wildcard's transform.
func safe(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("-_~/:@+", c) >= 0
}

// untoken returns what token made t from, and false when t is a hash, or no token.
func untoken(t string) (string, bool) {
	switch {
	case t == "=":
		return "", true
	case strings.IndexByte(t, '=') < 0:
		return t, t != ""
	}
	b := make([]byte, 0, len(t))
	for i := 0; i < len(t); i++ {
		if t[i] != '=' {
			b = append(b, t[i])
			continue
		}
		if i+2 >= len(t) {
			return "", false
		}
		c, err := strconv.ParseUint(t[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(c))
		i += 2
	}
	return string(b), true
}

// keyOf returns the key that a path was made from, and false when it has a hash in it.
func keyOf(p string) (progress.Key, bool) {
	scope, id, ok := strings.Cut(p, ".")
	if !ok {
		return progress.Key{}, false
	}
	s, okScope := untoken(scope)
	i, okID := untoken(id)
	return progress.Key{Scope: s, ID: i}, okScope && okID
}

// subjects are the subjects of a Log.
//
//	<prefix>.log.<scope>.<id>                 stored: the records of a log
//	<prefix>.progress.<scope>.<id>.<attempt>  stored: the newest progress of an attempt
//	<prefix>.live.<scope>.<id>                core NATS: a record or a progress that was stored
type subjects struct{ log, progress, live string }

func newSubjects(prefix string) subjects {
	return subjects{log: prefix + ".log.", progress: prefix + ".progress.", live: prefix + ".live."}
}

func (s *subjects) ofLog(p string) string { return s.log + p }

func (s *subjects) ofProgress(p string, attempt int) string {
	return s.progress + p + "." + strconv.Itoa(attempt)
}

// ofLive is what a watcher subscribes to. It has no wildcard: those are dear for a server with
// subscriptions that come and go.
func (s *subjects) ofLive(p string) string { return s.live + p }

// pathOf returns the path within a log's subject.
func (s *subjects) pathOf(subject string) (string, bool) {
	p, ok := strings.CutPrefix(subject, s.log)
	return p, ok && strings.Count(p, ".") == 1
}
