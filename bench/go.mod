module github.com/pay-theory/streamer/v2/bench

go 1.26

require (
	github.com/coder/websocket v1.8.15
	github.com/pay-theory/streamer/v2 v2.0.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)

replace github.com/pay-theory/streamer/v2 => ../
