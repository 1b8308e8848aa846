package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/examples/mounting/suite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBothTransportsWorkThroughTheMiddleware(t *testing.T) { suite.Run(t, serve) }
