package transport

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

func nobody(context.Context, Credentials) (streamer.Identity, error) {
	return streamer.Identity{}, errors.New("who are you")
}

func TestErrorsOfTheAuthenticatorAreHiddenUnlessTheyAreMeantToBeSeen(t *testing.T) {
	for _, row := range []struct {
		err  error
		code string
	}{
		{errors.New("database password is hunter2"), streamer.ErrCodeUnauthorized},
		{streamer.NewError(streamer.ErrCodeUnauthorized, "signature is off by hunter2"), streamer.ErrCodeUnauthorized},
		{streamer.NewError(streamer.ErrCodeInternalError, "hunter2"), streamer.ErrCodeUnauthorized},
		{(*streamer.Error)(nil), streamer.ErrCodeUnauthorized},
		{streamer.NewError(streamer.ErrCodeForbidden, "banned"), streamer.ErrCodeForbidden},
		{streamer.NewError(streamer.ErrCodeServiceUnavailable, "keys can't be fetched"), streamer.ErrCodeServiceUnavailable},
	} {
		c := NewConfig(WithAuthenticator(func(context.Context, Credentials) (streamer.Identity, error) {
			return streamer.Identity{}, row.err
		}))
		_, err := c.Identify(context.Background(), Credentials{Token: "t"})
		require.Equal(t, row.code, err.Code)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestAnIdentityThatHasExpiredIsNone(t *testing.T) {
	c := NewConfig(WithAuthenticator(func(context.Context, Credentials) (streamer.Identity, error) {
		return streamer.Identity{User: "alice", Expires: time.Now()}, nil
	}))
	_, err := c.Identify(context.Background(), Credentials{Token: "t"})
	require.Equal(t, streamer.ErrCodeUnauthorized, err.Code)
}

func TestWhoSendsNoTokenMayStillSayHello(t *testing.T) {
	c := NewConfig(WithAuthenticator(nobody))
	_, known, err := c.Admit(httptest.NewRequest("GET", "/ws", nil), nil)
	require.Nil(t, err)
	require.False(t, known)

	r := httptest.NewRequest("GET", "/ws", nil)
	r.Header.Set("Authorization", "Bearer t")
	_, _, err = c.Admit(r, nil)
	require.Equal(t, streamer.ErrCodeUnauthorized, err.Code)
}
