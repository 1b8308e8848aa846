package streamer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// Typed returns a handler whose payload is decoded into In and whose result is Out, encoded
// as JSON. Decoding is strict: unknown fields, wrong types and trailing data are refused
// with VALIDATION_ERROR, whose text and "field" detail say where. No payload counts as null. When
// In, or a pointer to it, has the method Validate() error, it is asked too: an *Error it
// returns refuses the request, any other error as VALIDATION_ERROR with its text, which
// clients see.
//
// The handler counts as long work unless WithEstimate says otherwise.
func Typed[In, Out any](f func(ctx context.Context, in In, p Reporter) (Out, error)) Handler {
	if f == nil {
		panic("streamer: Typed: the function is nil")
	}
	return typed[In, Out]{f}
}

type typed[In, Out any] struct {
	f func(ctx context.Context, in In, p Reporter) (Out, error)
}

func (h typed[In, Out]) EstimatedDuration() time.Duration { return unknownDuration }

func (h typed[In, Out]) Validate(req *Request) error {
	_, err := h.decode(req)
	return err
}

func (h typed[In, Out]) ProcessWithProgress(ctx context.Context, req *Request, p Reporter) (*Result, error) {
	in, err := h.decode(req)
	if err != nil {
		return nil, err
	}
	out, err := h.f(ctx, in, p)
	if err != nil {
		return nil, err
	}
	return &Result{RequestID: req.ID, Success: true, Data: out}, nil
}

func (h typed[In, Out]) decode(req *Request) (In, error) {
	var in In
	if len(req.Payload) > 0 {
		dec := json.NewDecoder(bytes.NewReader(req.Payload))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			return in, decodeError(err)
		}
	}
	v, ok := any(in).(interface{ Validate() error })
	if !ok {
		v, ok = any(&in).(interface{ Validate() error })
	}
	if !ok {
		return in, nil
	}
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
		return in, NewError(ErrCodeValidation, "the payload is missing")
	}
	err := v.Validate()
	var public *Error
	if err == nil || errors.As(err, &public) {
		return in, err
	}
	return in, NewError(ErrCodeValidation, err.Error())
}

// decodeError says what is wrong with a payload, and where.
func decodeError(err error) *Error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		problem := fmt.Sprintf("want %s, got %s", jsonType(wrongType.Type), clip(wrongType.Value, 64))
		if wrongType.Field != "" {
			return fieldError(wrongType.Field, problem)
		}
		return NewError(ErrCodeValidation, "payload: "+problem)
	case errors.As(err, &syntax), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return NewError(ErrCodeValidation, "the payload is not valid JSON")
	}
	// encoding/json has no type for an unknown field.
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fieldError(strings.Trim(clip(field, 128), `"`), "no such field")
	}
	return NewError(ErrCodeValidation, "payload: "+strings.TrimPrefix(clip(err.Error(), maxReason), "json: "))
}

func fieldError(field, problem string) *Error {
	return NewError(ErrCodeValidation, fmt.Sprintf("payload field %q: %s", field, problem)).WithDetail("field", field)
}

// jsonType names t as JSON has it.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number of 0 or more"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return t.String()
	}
}
