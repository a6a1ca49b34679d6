package consensusd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quartet-kv/quartet/consensusd/internal/membership"
	"github.com/quartet-kv/quartet/consensusd/internal/node"
	"github.com/quartet-kv/quartet/consensusd/internal/raftlog"
	"github.com/quartet-kv/quartet/proto/consensuspb"
)

// diskLog is a raftlog whose metadata is the identity and a node.Meta.
type diskLog struct {
	*raftlog.Log
	id membership.Identity
}

// openLog opens the member's log, or makes it. One of another identity is
// refused: to change who a member is, it is removed and added anew.
func openLog(cfg Config, id membership.Identity, log *slog.Logger) (*diskLog, error) {
	o := raftlog.Options{Dir: cfg.DataDir, SegmentBytes: cfg.SegmentBytes, Log: log}
	exists, err := raftlog.Exists(o)
	if err != nil {
		return nil, err
	}
	if !exists {
		l, err := raftlog.Create(o, encodeMeta(id, node.Meta{}))
		if err != nil {
			return nil, err
		}
		return &diskLog{l, id}, nil
	}
	l, err := raftlog.Open(o)
	if err != nil {
		return nil, err
	}
	stored, _, err := decodeMeta(l.Meta())
	if err == nil && stored != id {
		err = fmt.Errorf("log in %s belongs to member %x of cluster %x (epoch %d), the configuration makes member %x of cluster %x (epoch %d): give --name, --member and --cluster-token as they were, or another --data-dir",
			cfg.DataDir, stored.Member, stored.Cluster, stored.Epoch, id.Member, id.Cluster, id.Epoch)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &diskLog{l, id}, nil
}

// InitialState implements raft.Storage with what the metadata knows better.
func (l *diskLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := l.Log.InitialState()
	if err != nil {
		return nil, nil, err
	}
	meta, err := l.Meta()
	if err != nil {
		return nil, nil, err
	}
	hs, conf := meta.InitialState(hs)
	return hs, conf, nil
}

// Append implements node.Storage.
func (l *diskLog) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	return l.Log.Append(hs, entries, nil)
}

// Truncate implements node.Storage.
func (l *diskLog) Truncate(below uint64) error {
	meta, err := l.Meta()
	if err != nil || below <= 1 {
		return err
	}
	members, err := proto.Marshal(&consensuspb.Status{Members: meta.Members})
	if err != nil {
		return err
	}
	return l.Log.Truncate(below-1, meta.Conf, members)
}

// SaveMeta implements node.Storage.
func (l *diskLog) SaveMeta(m node.Meta) error { return l.SetMeta(encodeMeta(l.id, m)) }

// Meta implements node.Storage.
func (l *diskLog) Meta() (node.Meta, error) {
	_, m, err := decodeMeta(l.Log.Meta())
	return m, err
}

// Size implements node.Storage.
func (l *diskLog) Size() uint64 { return uint64(l.Bytes()) }

// TailStart implements node.Storage.
func (l *diskLog) TailStart(bytes uint64) uint64 { return l.Log.TailStart(int64(bytes)) }

// The metadata is a version, the length of a consensuspb.Status with identity,
// applied index and members in it, that Status, and a raftpb.ConfState.
const metaVersion = 1

func encodeMeta(id membership.Identity, m node.Meta) []byte {
	opts := proto.MarshalOptions{Deterministic: true}
	// Neither can fail: they hold no required fields and only valid UTF-8, or the
	// configuration would have been refused.
	row, err := opts.Marshal(&consensuspb.Status{
		ClusterId: id.Cluster, MemberId: id.Member, Epoch: id.Epoch, Applied: m.Applied, Members: m.Members,
	})
	conf, err2 := opts.Marshal(raftpb.EnsureConfState(m.Conf))
	if err := errors.Join(err, err2); err != nil {
		panic(fmt.Sprintf("encode the log's metadata: %v", err))
	}
	b := binary.AppendUvarint([]byte{metaVersion}, uint64(len(row)))
	return append(append(b, row...), conf...)
}

func decodeMeta(b []byte) (membership.Identity, node.Meta, error) {
	if len(b) == 0 || b[0] != metaVersion {
		return membership.Identity{}, node.Meta{}, errors.New("the log's metadata is of a version that is not known")
	}
	n, k := binary.Uvarint(b[1:])
	if k <= 0 || n > uint64(len(b)-1-k) {
		return membership.Identity{}, node.Meta{}, errors.New("the log's metadata is cut short")
	}
	row, conf := &consensuspb.Status{}, &raftpb.ConfState{}
	rest := b[1+k:]
	if err := errors.Join(proto.Unmarshal(rest[:n], row), proto.Unmarshal(rest[n:], conf)); err != nil {
		return membership.Identity{}, node.Meta{}, fmt.Errorf("decode the log's metadata: %w", err)
	}
	id := membership.Identity{Cluster: row.ClusterId, Member: row.MemberId, Epoch: row.Epoch}
	return id, node.Meta{Applied: row.Applied, Conf: conf, Members: row.Members}, nil
}
