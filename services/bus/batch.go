package bus

import (
	"sort"

	"github.com/quartet-kv/quartet/proto/buspb"
	"github.com/quartet-kv/quartet/services/logid"
)

// ToPull is a batch that says where b stands and that its revisions are to be
// pulled: what a bus carries in place of a batch that is too large for it.
func ToPull(b *buspb.Batch) *buspb.Batch {
	c := withoutRevisions(b)
	c.Pull = true
	return c
}

func withoutRevisions(b *buspb.Batch) *buspb.Batch {
	return &buspb.Batch{
		ClusterId:       b.ClusterId,
		At:              b.At,
		PrevIndex:       b.PrevIndex,
		PrevRevision:    b.PrevRevision,
		Revision:        b.Revision,
		CompactRevision: b.CompactRevision,
		AuthRevision:    b.AuthRevision,
		AlarmVersion:    b.AlarmVersion,
		RaftTerm:        b.RaftTerm,
		Pull:            b.Pull,
	}
}

// from is b as it looks from a position inside it: without the revisions that
// the position has. The batch itself is shared and stays as it is.
func from(p Position, b *buspb.Batch) *buspb.Batch {
	if b.PrevIndex == uint64(p.At.Index) && b.PrevRevision == p.Revision {
		return b
	}
	c := withoutRevisions(b)
	c.PrevIndex, c.PrevRevision = uint64(p.At.Index), p.Revision
	has := sort.Search(len(b.Revisions), func(i int) bool { return b.Revisions[i].Revision > p.Revision })
	c.Revisions = b.Revisions[has:]
	return c
}

// positionAfter is where a receiver stands that has taken b.
func positionAfter(b *buspb.Batch) Position {
	return Position{
		At:              logid.FromProto(b.At),
		Revision:        b.Revision,
		CompactRevision: b.CompactRevision,
		AuthRevision:    b.AuthRevision,
		AlarmVersion:    b.AlarmVersion,
		Term:            logid.Term(b.RaftTerm),
	}
}
