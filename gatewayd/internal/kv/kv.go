package kv

import (
	"context"

	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/quartet-kv/quartet/gatewayd/internal/edge"
	"github.com/quartet-kv/quartet/gatewayd/internal/wire"
	"github.com/quartet-kv/quartet/proto/logpb"
	"github.com/quartet-kv/quartet/proto/storepb"
	"github.com/quartet-kv/quartet/services/logid"
	"github.com/quartet-kv/quartet/services/store"
)

// Proposer puts a command into the log, once, and waits for its outcome.
// session.Session is one.
type Proposer interface {
	Propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*storepb.Outcome, error)
}

// ReadIndexer says up to where a store must be for a linearizable read.
type ReadIndexer interface {
	Wait(ctx context.Context) (logid.ID, logid.Term, error)
}

// Reader answers reads at a store. store.Reader is one.
type Reader interface {
	Read(ctx context.Context, read *storepb.ReadRequest, floor store.Floor) (store.Result, error)
	Scan(ctx context.Context, req *storepb.ScanRequest, each func(*storepb.ScanChunk) error) error
}

// Deps is what the service asks.
type Deps struct {
	Edge    *edge.Edge
	Session Proposer
	Index   ReadIndexer
	Reader  Reader
	// WaitCompacted returns when the space below a compact revision is
	// reclaimable.
	WaitCompacted func(ctx context.Context, revision int64) error
}

// Config holds the limits of requests.
type Config struct {
	// RequestBytesMax bounds an encoded command.
	RequestBytesMax int
	// TxnOpsMax bounds compares, and operations of each branch, of a
	// transaction together with those nested in it.
	TxnOpsMax int
}

// Server is the KV service.
type Server struct {
	Deps
	config Config
	scans  chan struct{} // one token for each large response being put together
}

// New returns the service, to be registered.
func New(c Config, d Deps) *Server {
	return &Server{Deps: d, config: c, scans: make(chan struct{}, scansMax)}
}

// Register adds the service to a server that uses wire.Codec.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	const name = "etcdserverpb.KV"
	r.RegisterService(wire.Service(name,
		[]grpc.MethodDesc{
			wire.Unary(name, "Range", s.rangeKeys),
			wire.Unary(name, "Put", s.put),
			wire.Unary(name, "DeleteRange", s.deleteRange),
			wire.Unary(name, "Txn", s.txn),
			wire.Unary(name, "Compact", s.compact),
		},
		[]grpc.StreamDesc{wire.Stream("RangeStream", s.rangeStream)},
	), s)
}

// The requests as they arrive.
type (
	rangeRequest   = wire.Request[etcdserverpb.RangeRequest, *etcdserverpb.RangeRequest]
	putRequest     = wire.Request[etcdserverpb.PutRequest, *etcdserverpb.PutRequest]
	deleteRequest  = wire.Request[etcdserverpb.DeleteRangeRequest, *etcdserverpb.DeleteRangeRequest]
	txnRequest     = wire.Request[etcdserverpb.TxnRequest, *etcdserverpb.TxnRequest]
	compactRequest = wire.Request[etcdserverpb.CompactionRequest, *etcdserverpb.CompactionRequest]
)

// propose is the way of every write.
func (s *Server) propose(ctx context.Context, kind logpb.Command_Kind, body []byte) (*wire.Response, error) {
	if len(body)+commandOverheadBytes > s.config.RequestBytesMax {
		return nil, rpctypes.ErrGRPCRequestTooLarge
	}
	ctx, cancel := s.Edge.Limit(ctx)
	defer cancel()
	outcome, err := s.Session.Propose(ctx, kind, body)
	if err != nil {
		return nil, edge.WriteError(err)
	}
	return s.Edge.Answer(outcome.Revision, 0, outcome.Body), nil
}

// commandOverheadBytes is what a command adds to its body: two tags, a kind and
// a length.
const commandOverheadBytes = 2 + 1 + 4

// floor is what a read must not be answered below.
func (s *Server) floor(ctx context.Context, serializable bool) (store.Floor, error) {
	if serializable {
		return store.Floor{Revision: s.Edge.Floor.Revision()}, nil
	}
	at, term, err := s.Index.Wait(ctx)
	if err != nil {
		return store.Floor{}, err
	}
	s.Edge.Floor.RaiseTerm(uint64(term))
	return store.Floor{Index: at.Index, Epoch: at.Epoch, Revision: s.Edge.Floor.Revision()}, nil
}
