// Package acceptance holds the one suite that says what a client of etcd may
// rely on. It runs, unchanged, on every composition of Quartet and on two
// versions of etcd: what it asks of Quartet has been asked of etcd before.
//
// # Running
//
//	go test ./deploy/acceptance
//	go test ./deploy/acceptance -targets=split,etcd37 -run TestWatch
//
// ACCEPTANCE_TARGETS in the environment is the same as -targets. Without either,
// all kinds run for which a program is at hand; one that is missing is skipped
// with the reason, and fails the run when CI=true. -full (ACCEPTANCE_FULL) runs
// everything at the size that the promises name.
//
// # How tests are written
//
// A target's cluster is started once and shared, so every test has a key prefix
// of its own and speaks of revisions relative to the one it began at. Tests run
// one after another: they count revisions, so nobody else may write. A test
// that needs an untouched store starts a cluster for itself.
//
// Most rules are rows of a table: a request as it goes over the wire, and the
// text of the answer. scene.show defines that text; clientv3 hides too much
// (codes, headers, empty fields) to be the only witness. Nothing waits by
// sleeping: that something does *not* arrive is shown by a later message on the
// same ordered stream.
//
// # Differences
//
// differences_test.go is the one list of where a target is known to answer
// otherwise, with the reason.
package acceptance
