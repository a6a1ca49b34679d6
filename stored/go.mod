module github.com/quartet-kv/quartet/stored

go 1.26.0

require (
	github.com/quartet-kv/quartet/proto v0.0.0
	github.com/quartet-kv/quartet/services v0.0.0
)

replace github.com/quartet-kv/quartet/proto => ../proto

replace github.com/quartet-kv/quartet/services => ../services
