package streamer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

// purchase is a payload with fields of all kinds.
type purchase struct {
	Item    string         `json:"item"`
	Count   int            `json:"count"`
	Price   float64        `json:"price"`
	Gift    bool           `json:"gift"`
	Tags    []string       `json:"tags"`
	Extra   map[string]any `json:"extra"`
	Address struct {
		ZIP uint16 `json:"zip"`
	} `json:"address"`
	Due  time.Time `json:"due"`
	Note *string   `json:"note"`
}

func echoes[T any](_ context.Context, in T, _ streamer.Reporter) (T, error) { return in, nil }

// typedService has Typed handlers, as short work.
func typedService(t *testing.T) *service {
	short := streamer.WithEstimate(0)
	return gateway(t, func(m *streamer.Mux) {
		m.Handle("order", streamer.Typed(echoes[purchase]), short)
		m.Handle("order pointer", streamer.Typed(echoes[*purchase]), short)
		m.Handle("list", streamer.Typed(echoes[[]int]), short)
		m.Handle("value", streamer.Typed(echoes[valueChecked]), short)
		m.Handle("pointer", streamer.Typed(echoes[pointerChecked]), short)
		m.Handle("to pointer", streamer.Typed(echoes[*pointerChecked]), short)
		m.Handle("to value", streamer.Typed(echoes[*valueChecked]), short)
	})
}

func TestTypedHandlersGetAndReturnValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("double", streamer.Typed(func(ctx context.Context, in int, p streamer.Reporter) (map[string]int, error) {
				_ = p.Report(50, "doubling")
				if in < 0 {
					return nil, streamer.NewError("NEGATIVE", "give me more")
				}
				return map[string]int{"doubled": 2 * in, "attempt": streamer.Attempt(ctx)}, nil
			}))
		})
		defer s.stop()
		require.JSONEq(t, `{"doubled":42,"attempt":1}`, string(s.ends("double", "r1", `21`).Data))
		require.Equal(t, "doubling", s.page("r1").Progress.Message)
		require.Equal(t, "NEGATIVE", s.ends("double", "r2", `-1`).Error.Code)
		err := s.refused(alice, request("double", "r3", `"x"`))
		require.Equal(t, "payload: want a whole number, got string", err.Message)
	})
}

func TestTypedIsLongWorkUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	require.Greater(t, streamer.Typed(echoes[int]).EstimatedDuration(), time.Minute)
}

func TestTypedRefusesAPayloadOfAnotherShapeAndSaysWhere(t *testing.T) {
	t.Parallel()
	s := typedService(t)
	for payload, want := range map[string]struct{ field, message string }{
		`{"item":1}`:             {"item", `payload field "item": want a string, got number`},
		`{"count":"1"}`:          {"count", `payload field "count": want a whole number, got string`},
		`{"count":1.5}`:          {"count", `payload field "count": want a whole number, got number 1.5`},
		`{"count":1e30}`:         {"count", `payload field "count": want a whole number, got number 1e30`},
		`{"price":true}`:         {"price", `payload field "price": want a number, got bool`},
		`{"gift":"yes"}`:         {"gift", `payload field "gift": want a boolean, got string`},
		`{"tags":{}}`:            {"tags", `payload field "tags": want an array, got object`},
		`{"tags":["a",1]}`:       {"tags", `payload field "tags": want a string, got number`},
		`{"extra":[]}`:           {"extra", `payload field "extra": want an object, got array`},
		`{"address":{"zip":-1}}`: {"address.zip", `payload field "address.zip": want a whole number of 0 or more, got number -1`},
		`{"address":5}`:          {"address", `payload field "address": want an object, got number`},
		`{"note":1}`:             {"note", `payload field "note": want a string, got number`},
		`{"itme":"x"}`:           {"itme", `payload field "itme": no such field`},
		`[]`:                     {"", `payload: want an object, got array`},
		`"x"`:                    {"", `payload: want an object, got string`},
		`{} {}`:                  {"", `the payload is not valid JSON`},
		`{} x`:                   {"", `the payload is not valid JSON`},
		`{"item":`:               {"", `the payload is not valid JSON`},
		` `:                      {"", `the payload is not valid JSON`},
		`{'item':1}`:             {"", `the payload is not valid JSON`},
	} {
		for _, action := range []string{"order", "order pointer"} {
			err := s.refused(alice, request(action, "r1", payload))
			require.Equal(t, streamer.ErrCodeValidation, err.Code, payload)
			require.Equal(t, want.message, err.Message, payload)
			if want.field != "" {
				require.Equal(t, map[string]any{"field": want.field}, err.Details, payload)
			} else {
				require.Empty(t, err.Details, payload)
			}
		}
	}
	err := s.refused(alice, request("order", "r1", `{"due":"tomorrow"}`))
	require.Equal(t, streamer.ErrCodeValidation, err.Code)
	require.Contains(t, err.Message, "tomorrow")
	require.Equal(t, `payload: want an array, got object`, s.refused(alice, request("list", "r1", `{}`)).Message)
}

func TestTypedTakesNoPayloadAsNull(t *testing.T) {
	t.Parallel()
	s := typedService(t)
	for _, payload := range []string{``, `null`} {
		require.Equal(t, `null`, string(s.submit("list", "", payload).End.Data))
		require.Equal(t, `null`, string(s.submit("order pointer", "", payload).End.Data))
		require.Contains(t, string(s.submit("order", "", payload).End.Data), `"item":""`)
	}
}

type valueChecked struct{ N int }

func (c valueChecked) Validate() error { return check(c.N) }

type pointerChecked struct{ N int }

func (c *pointerChecked) Validate() error { return check(c.N) }

func check(n int) error {
	switch n {
	case 0:
		return errors.New("N must not be 0")
	case 1:
		return streamer.NewError("ODD", "N is odd").WithDetail("n", n)
	case 3:
		return fmt.Errorf("wrapped: %w", streamer.NewError("ODD", "N is odd").WithDetail("n", n))
	case 5:
		panic("5 is too much")
	}
	return nil
}

func TestTypedAsksValidateOfValuesAndPointers(t *testing.T) {
	t.Parallel()
	s := typedService(t)
	for _, action := range []string{"value", "pointer", "to pointer", "to value"} {
		require.JSONEq(t, `{"N":2}`, string(s.submit(action, "", `{"N":2}`).End.Data), action)
		require.Equal(t, streamer.NewError(streamer.ErrCodeValidation, "N must not be 0"), s.refused(alice, request(action, "", `{}`)), action)
		for _, n := range []string{"1", "3"} {
			err := s.refused(alice, request(action, "", `{"N":`+n+`}`))
			require.Equal(t, "ODD", err.Code, action)
			require.Equal(t, "N is odd", err.Message, action)
			require.Contains(t, err.Details, "n", action)
		}
		require.Equal(t, streamer.ErrCodeInternalError, s.refused(alice, request(action, "", `{"N":5}`)).Code, action)
	}
	for _, action := range []string{"to pointer", "to value"} {
		for _, payload := range []string{``, `null`} {
			require.Equal(t, "the payload is missing", s.refused(alice, request(action, "", payload)).Message, action)
		}
	}
	for _, action := range []string{"value", "pointer"} {
		require.Equal(t, "N must not be 0", s.refused(alice, request(action, "", `null`)).Message, action)
	}
}

func TestTypedChecksAgainWhereTheRequestRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		old := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, stores...)
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", streamer.Typed(echoes[purchase])) }, stores...)
		defer s.stop()
		old.submit("x", "r1", `{"item":1}`)
		end := s.end("r1")
		require.Equal(t, streamer.ErrCodeValidation, end.Error.Code, "accepted by a process with other handlers")
		require.JSONEq(t, `{"field":"item"}`, string(end.Error.Details))
	})
}
