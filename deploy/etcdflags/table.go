package etcdflags

// kind says what Quartet does with one of etcd's flags.
type kind int

const (
	// used: `quartet member` does what etcd does.
	used kind = iota
	// ignored: it tunes something that Quartet does not have, so leaving it out
	// changes nothing that a user relies on. Accepted, and said in the log.
	ignored
	// refused: a user relies on what it does and Quartet does not do it yet.
	// Any value but etcd's default is an error.
	refused
)

// flag is one row of etcd's flags at 3.7, with etcd's default.
type flag struct {
	name    string
	kind    kind
	boolean bool
	value   string
}

// table is every flag of etcd. Those that are used have their meaning in
// Config.
var table = []flag{
	{"name", used, false, "default"},
	{"data-dir", used, false, ""},
	{"listen-client-urls", used, false, "http://localhost:2379"},
	{"advertise-client-urls", used, false, "http://localhost:2379"},
	{"listen-peer-urls", used, false, "http://localhost:2380"},
	{"initial-advertise-peer-urls", used, false, "http://localhost:2380"},
	{"initial-cluster", used, false, ""},
	{"initial-cluster-state", used, false, "new"},
	{"initial-cluster-token", used, false, "etcd-cluster"},
	{"heartbeat-interval", used, false, "100"},
	{"election-timeout", used, false, "1000"},
	{"max-request-bytes", used, false, "1572864"},
	{"max-txn-ops", used, false, "128"},
	{"watch-progress-notify-interval", used, false, "10m"},
	{"log-level", used, false, "info"},
	{"listen-metrics-urls", used, false, ""},
	{"version", used, true, "false"},

	{"backend-batch-interval", ignored, false, "0"},
	{"backend-batch-limit", ignored, false, "0"},
	{"backend-bbolt-freelist-type", ignored, false, ""},
	{"bcrypt-cost", ignored, false, "10"},
	{"bootstrap-defrag-threshold-megabytes", ignored, false, "0"},
	{"compact-hash-check-time", ignored, false, "1m"},
	{"compaction-batch-limit", ignored, false, "1000"},
	{"compaction-sleep-interval", ignored, false, "10ms"},
	{"corrupt-check-time", ignored, false, "0"},
	{"cors", ignored, false, "*"},
	{"distributed-tracing-address", ignored, false, "localhost:4317"},
	{"distributed-tracing-instance-id", ignored, false, ""},
	{"distributed-tracing-sampling-rate", ignored, false, "0"},
	{"distributed-tracing-service-name", ignored, false, "etcd"},
	{"downgrade-check-time", ignored, false, "5s"},
	{"enable-distributed-tracing", ignored, true, "false"},
	{"enable-grpc-gateway", ignored, true, "true"},
	{"enable-log-rotation", ignored, true, "false"},
	{"enable-pprof", ignored, true, "false"},
	{"feature-gates", ignored, false, ""},
	{"grpc-keepalive-interval", ignored, false, "2h"},
	{"grpc-keepalive-min-time", ignored, false, "5s"},
	{"grpc-keepalive-timeout", ignored, false, "20s"},
	{"initial-election-tick-advance", ignored, true, "true"},
	{"log-format", ignored, false, "json"},
	{"log-outputs", ignored, false, "default"},
	{"log-rotation-config-json", ignored, false, ""},
	{"logger", ignored, false, "zap"},
	{"max-concurrent-streams", ignored, false, "4294967295"},
	{"max-learners", ignored, false, "1"},
	{"max-wals", ignored, false, "5"},
	{"memory-mlock", ignored, true, "false"},
	{"metrics", ignored, false, "basic"},
	{"pre-vote", ignored, true, "true"},
	{"quota-backend-bytes", ignored, false, "0"},
	{"raft-read-timeout", ignored, false, "5s"},
	{"raft-write-timeout", ignored, false, "5s"},
	{"snapshot-catchup-entries", ignored, false, "5000"},
	{"snapshot-count", ignored, false, "10000"},
	{"socket-reuse-address", ignored, true, "false"},
	{"socket-reuse-port", ignored, true, "false"},
	{"strict-reconfig-check", ignored, true, "true"},
	{"wal-dir", ignored, false, ""},
	{"warning-apply-duration", ignored, false, "100ms"},
	{"warning-unary-request-duration", ignored, false, "300ms"},

	{"auth-token", refused, false, "simple"},
	{"auth-token-ttl", refused, false, "300"},
	{"auto-compaction-mode", refused, false, "periodic"},
	{"auto-compaction-retention", refused, false, "0"},
	{"auto-tls", refused, true, "false"},
	{"cert-file", refused, false, ""},
	{"cipher-suites", refused, false, ""},
	{"client-cert-allowed-hostname", refused, false, ""},
	{"client-cert-auth", refused, true, "false"},
	{"client-cert-file", refused, false, ""},
	{"client-crl-file", refused, false, ""},
	{"client-key-file", refused, false, ""},
	{"config-file", refused, false, ""},
	{"discovery-cacert", refused, false, ""},
	{"discovery-cert", refused, false, ""},
	{"discovery-dial-timeout", refused, false, "2s"},
	{"discovery-endpoints", refused, false, ""},
	{"discovery-fallback", refused, false, "exit"},
	{"discovery-insecure-skip-tls-verify", refused, true, "false"},
	{"discovery-insecure-transport", refused, true, "true"},
	{"discovery-keepalive-time", refused, false, "2s"},
	{"discovery-keepalive-timeout", refused, false, "6s"},
	{"discovery-key", refused, false, ""},
	{"discovery-password", refused, false, ""},
	{"discovery-request-timeout", refused, false, "5s"},
	{"discovery-srv", refused, false, ""},
	{"discovery-srv-name", refused, false, ""},
	{"discovery-token", refused, false, ""},
	{"discovery-user", refused, false, ""},
	{"force-new-cluster", refused, true, "false"},
	{"host-whitelist", refused, false, "*"},
	{"key-file", refused, false, ""},
	{"listen-client-http-urls", refused, false, ""},
	{"peer-auto-tls", refused, true, "false"},
	{"peer-cert-allowed-cn", refused, false, ""},
	{"peer-cert-allowed-hostname", refused, false, ""},
	{"peer-cert-file", refused, false, ""},
	{"peer-client-cert-auth", refused, true, "false"},
	{"peer-client-cert-file", refused, false, ""},
	{"peer-client-key-file", refused, false, ""},
	{"peer-crl-file", refused, false, ""},
	{"peer-key-file", refused, false, ""},
	{"peer-skip-client-san-verification", refused, true, "false"},
	{"peer-trusted-ca-file", refused, false, ""},
	{"self-signed-cert-validity", refused, false, "1"},
	{"tls-max-version", refused, false, ""},
	{"tls-min-version", refused, false, "TLS1.2"},
	{"trusted-ca-file", refused, false, ""},
	{"unsafe-no-fsync", refused, true, "false"},
}
