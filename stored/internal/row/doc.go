// Package row is the layout of a store's state as rows of an engine: which keys
// there are and what their values hold. The stamp of a row is not part of its
// key; the engine keeps it (see engine).
//
//	m                        meta: where the state stands as a whole
//	k <key>                  the key's key-value (an encoded mvccpb.KeyValue),
//	                         or a tombstone
//	h <revision>             history: the stamp that made the revision, the
//	                         chained hash, and the changed keys in order
//	h <revision> <part>      more changed keys of a revision that has many; the
//	                         part is 4 bytes
//	s <session>              an open session
//	l <lease>                a lease's record
//	a <lease> <key>          the key is attached to the lease
//
// Numbers in keys are 8 bytes, big endian, so that rows stand in their order.
// A row that is gone (a deleted key, a revoked lease, a detached key, a closed
// session) is a tombstone: an empty value. It is a row like any other, so what
// was there before stays readable at earlier stamps until it is purged.
//
// Every (key, stamp) has one value, which is a function of the log alone,
// except that m and s rows need not be written at every stamp that changes
// them: a batch of entries writes them once, at its last stamp. Reading at the
// stamp of any batch's end finds them exact, and reads happen only there.
package row
