module github.com/pay-theory/streamer/v2/test/proxy

go 1.26.0

require (
	github.com/pay-theory/streamer/v2 v2.0.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/google/uuid v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/pay-theory/streamer/v2 => ../..
