package inproc

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// conn finds its Server anew for each call, so that it outlives a Server.
type conn struct {
	lookup func() (*Server, error)
}

// Invoke runs a unary handler on the caller's goroutine.
func (c conn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	s, err := c.lookup()
	if err != nil {
		return toStatus(err)
	}
	svc, name, err := s.enter(method)
	if err != nil {
		return err
	}
	defer s.handlers.Done()
	desc, ok := svc.methods[name]
	if !ok {
		return status.Errorf(codes.Unimplemented, "unknown method %v", name)
	}
	if err := ctx.Err(); err != nil {
		return toStatus(err)
	}
	sctx, cancel := s.serverContext(ctx)
	defer cancel(nil)
	out, err := desc.Handler(svc.impl, sctx, func(in any) error { return assign(in, args) }, nil)
	if err != nil {
		return endError(sctx, err)
	}
	return assign(reply, out)
}

// NewStream starts a stream's handler on a goroutine of the Server's.
func (c conn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.lookup()
	if err != nil {
		return nil, toStatus(err)
	}
	svc, name, err := s.enter(method)
	if err != nil {
		return nil, err
	}
	desc, ok := svc.streams[name]
	if !ok {
		s.handlers.Done()
		return nil, status.Errorf(codes.Unimplemented, "unknown method %v", name)
	}
	if err := ctx.Err(); err != nil {
		s.handlers.Done()
		return nil, toStatus(err)
	}
	p := &pipe{up: make(chan any, streamDepth), down: make(chan any, streamDepth), upClosed: make(chan struct{}), done: make(chan struct{})}
	sctx, cancel := s.serverContext(ctx)
	p.ctx = sctx
	go func() {
		defer s.handlers.Done()
		p.finish(endError(sctx, desc.Handler(svc.impl, &serverStream{p})))
		cancel(nil)
	}()
	return &clientStream{p}, nil
}

// pipe is one stream: two bounded channels and how it ended.
type pipe struct {
	ctx      context.Context // the handler's
	up, down chan any

	upOnce   sync.Once
	upClosed chan struct{} // the client sends no more
	done     chan struct{} // the handler has returned; err is set
	err      error
}

func (p *pipe) finish(err error) {
	p.err = err
	close(p.done)
}

// ended is what a client sees once nothing is left to receive.
func (p *pipe) ended() error {
	if p.err == nil {
		return io.EOF
	}
	return p.err
}

type clientStream struct{ *pipe }

func (c *clientStream) Header() (metadata.MD, error) { return nil, nil }
func (c *clientStream) Trailer() metadata.MD         { return nil }
func (c *clientStream) Context() context.Context     { return c.ctx }

func (c *clientStream) CloseSend() error {
	c.upOnce.Do(func() { close(c.upClosed) })
	return nil
}

// SendMsg blocks while streamDepth messages wait; io.EOF says that the stream
// has ended and RecvMsg knows how.
func (c *clientStream) SendMsg(m any) error {
	select {
	case <-c.done:
		return io.EOF
	default:
	}
	select {
	case c.up <- m:
		return nil
	case <-c.done:
		return io.EOF
	case <-c.ctx.Done():
		return io.EOF
	}
}

func (c *clientStream) RecvMsg(m any) error {
	select {
	case got := <-c.down:
		return assign(m, got)
	default:
	}
	select {
	case got := <-c.down:
		return assign(m, got)
	case <-c.ctx.Done():
		return c.afterDone(m)
	case <-c.done:
		return c.afterDone(m)
	}
}

// afterDone hands over what was sent before the end, then the end.
func (c *clientStream) afterDone(m any) error {
	select {
	case got := <-c.down:
		return assign(m, got)
	default:
	}
	select {
	case <-c.done:
		// The handler may have sent between the two looks.
		select {
		case got := <-c.down:
			return assign(m, got)
		default:
			return c.ended()
		}
	default:
		return toStatus(context.Cause(c.ctx))
	}
}

type serverStream struct{ *pipe }

func (s *serverStream) SetHeader(metadata.MD) error  { return nil }
func (s *serverStream) SendHeader(metadata.MD) error { return nil }
func (s *serverStream) SetTrailer(metadata.MD)       {}
func (s *serverStream) Context() context.Context     { return s.ctx }

func (s *serverStream) SendMsg(m any) error {
	if s.ctx.Err() != nil {
		return toStatus(context.Cause(s.ctx))
	}
	select {
	case s.down <- m:
		return nil
	case <-s.ctx.Done():
		return toStatus(context.Cause(s.ctx))
	}
}

func (s *serverStream) RecvMsg(m any) error {
	select {
	case got := <-s.up:
		return assign(m, got)
	default:
	}
	select {
	case got := <-s.up:
		return assign(m, got)
	case <-s.ctx.Done():
		return toStatus(context.Cause(s.ctx))
	case <-s.upClosed:
		// SendMsg before CloseSend: the channel may still hold messages.
		select {
		case got := <-s.up:
			return assign(m, got)
		default:
			return io.EOF
		}
	}
}

// assign gives dst the fields of src, sharing their memory.
func assign(dst, src any) error {
	d, ok := dst.(proto.Message)
	s, ok2 := src.(proto.Message)
	if !ok || !ok2 {
		return status.Errorf(codes.Internal, "inproc: %T and %T are not both protobuf messages", dst, src)
	}
	to, from := d.ProtoReflect(), s.ProtoReflect()
	if to.Descriptor() != from.Descriptor() {
		return status.Errorf(codes.Internal, "inproc: %T received as %T", src, dst)
	}
	from.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(field, v)
		return true
	})
	to.SetUnknown(from.GetUnknown())
	return nil
}

// endError is a handler's error as the caller sees it: a Stop shows as
// Unavailable even if the handler says that its context was cancelled.
func endError(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStopped) && status.Code(toStatus(err)) == codes.Canceled {
		return errStopped
	}
	return toStatus(err)
}

func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unknown, err.Error())
}
