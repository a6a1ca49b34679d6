package inproc

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/quartet-kv/quartet/services/dial"
)

// streamDepth is how many messages each direction of a stream holds.
const streamDepth = 16

var errStopped = status.Error(codes.Unavailable, "inproc: server stopped")

// Server holds the services of one daemon. It implements
// grpc.ServiceRegistrar. Services are registered before the first call.
type Server struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu struct {
		sync.Mutex
		services map[string]service
		stopped  bool
	}
	handlers sync.WaitGroup
}

type service struct {
	impl    any
	methods map[string]grpc.MethodDesc
	streams map[string]grpc.StreamDesc
}

// NewServer returns a running Server without services.
func NewServer() *Server {
	s := &Server{}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.mu.services = make(map[string]service)
	return s
}

// RegisterService adds a service; a second one of the same name panics, as in
// gRPC.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.mu.services[desc.ServiceName]; ok {
		panic("inproc: service registered twice: " + desc.ServiceName)
	}
	svc := service{impl: impl, methods: make(map[string]grpc.MethodDesc), streams: make(map[string]grpc.StreamDesc)}
	for _, m := range desc.Methods {
		svc.methods[m.MethodName] = m
	}
	for _, st := range desc.Streams {
		svc.streams[st.StreamName] = st
	}
	s.mu.services[desc.ServiceName] = svc
}

// Stop ends every stream and refuses new calls, and returns when the handlers
// have returned.
func (s *Server) Stop() {
	s.mu.Lock()
	s.mu.stopped = true
	s.mu.Unlock()
	s.cancel(errStopped)
	s.handlers.Wait()
}

// Conn is a connection to this Server alone.
func (s *Server) Conn() grpc.ClientConnInterface {
	return conn{lookup: func() (*Server, error) { return s, nil }}
}

// enter finds the service of a method and counts a handler in.
func (s *Server) enter(method string) (service, string, error) {
	name, method, ok := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if !ok {
		return service{}, "", status.Errorf(codes.Unimplemented, "malformed method name: %q", method)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped {
		return service{}, "", errStopped
	}
	svc, ok := s.mu.services[name]
	if !ok {
		return service{}, "", status.Errorf(codes.Unimplemented, "unknown service %v", name)
	}
	s.handlers.Add(1)
	return svc, method, nil
}

// serverContext is the handler's context: the caller's, ended by Stop too,
// with the caller's outgoing metadata as incoming.
func (s *Server) serverContext(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	md, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewIncomingContext(ctx, md)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(errStopped) })
	return ctx, func(cause error) { stop(); cancel(cause) }
}

// Fabric is the set of addresses served inside this process. It is a
// dial.Dialer for them and says ErrUnknownAddress for all others, so that it
// can be laid over a network Dialer.
type Fabric struct {
	mu struct {
		sync.Mutex
		servers map[string]*Server
	}
}

// NewFabric returns a Fabric that serves no address.
func NewFabric() *Fabric {
	f := &Fabric{}
	f.mu.servers = make(map[string]*Server)
	return f
}

// Server puts a new Server at addr, in place of a stopped one. An address
// stays known for ever: while its Server is stopped, calls are Unavailable.
func (f *Fabric) Server(addr string) *Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := NewServer()
	f.mu.servers[addr] = s
	return s
}

// Dial implements dial.Dialer. The classes share one connection: nothing queues
// here.
func (f *Fabric) Dial(addr string, _ dial.Class) (grpc.ClientConnInterface, error) {
	lookup := func() (*Server, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if s, ok := f.mu.servers[addr]; ok {
			return s, nil
		}
		return nil, fmt.Errorf("%w: %s", dial.ErrUnknownAddress, addr)
	}
	if _, err := lookup(); err != nil {
		return nil, err
	}
	return conn{lookup}, nil
}
