package acceptance

import "github.com/quartet-kv/quartet/deploy/harness"

// difference is a rule that some targets are known not to follow. Each is named
// for what the listed targets do, and is used by name in the test that meets it.
type difference struct {
	on  []harness.Kind
	why string
}

var (
	etcd34 = []harness.Kind{harness.Etcd34}
)

var (
	noRangeStream = difference{etcd34,
		"RangeStream is new in 3.7"}
	streamTakesTargetWithoutOrder = difference{[]harness.Kind{harness.Etcd37},
		"RangeStream looks only at the order: a sort target without one is streamed, each chunk sorted for itself"}
	keysOnlyKeepsLease = difference{etcd34,
		"since 3.7 a keys_only range not sorted by value is answered from the index, which knows no lease (etcd#21791)"}
	unknownSortPanics = difference{etcd34,
		"an unknown sort order is taken for none, an unknown sort target ends the process"}
	deleteAtCompactRevisionLost = difference{etcd34,
		"before 3.4.34 a tombstone at the compact revision was dropped, and watchers from there missed the delete (etcd#18089, #19179)"}
	futureWatchGetsProgress = difference{etcd34,
		"before 3.4.38 a watch on a future revision was told of progress at once (etcd#20290)"}
	badRangeInTxnSplitsMembers = difference{etcd34,
		"members disagree on a range of a compacted or future revision inside a txn that writes: some apply it, and their revisions part for ever (etcd#18667)"}
	negativeStartIsTaken = difference{etcd34,
		"3.4 takes a negative start revision for none"}
	progressWithoutWatchers = difference{etcd34,
		"3.4 answers a progress request on a stream that watches nothing"}
	progressAheadOfEvents = difference{etcd34,
		"before 3.4.25 a progress answer could run ahead of events (etcd#15220)"}
)

// has reports whether d is known of tg.
func (tg *target) has(d difference) bool {
	for _, k := range d.on {
		if k == tg.Kind() {
			return true
		}
	}
	return false
}
