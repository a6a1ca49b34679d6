module github.com/quartet-kv/quartet/deploy

go 1.26.0

require (
	github.com/quartet-kv/quartet/consensusd v0.0.0
	github.com/quartet-kv/quartet/gatewayd v0.0.0
	github.com/quartet-kv/quartet/leased v0.0.0
	github.com/quartet-kv/quartet/proto v0.0.0
	github.com/quartet-kv/quartet/services v0.0.0
	github.com/quartet-kv/quartet/stored v0.0.0
)

replace github.com/quartet-kv/quartet/proto => ../proto

replace github.com/quartet-kv/quartet/services => ../services

replace github.com/quartet-kv/quartet/consensusd => ../consensusd

replace github.com/quartet-kv/quartet/stored => ../stored

replace github.com/quartet-kv/quartet/leased => ../leased

replace github.com/quartet-kv/quartet/gatewayd => ../gatewayd
