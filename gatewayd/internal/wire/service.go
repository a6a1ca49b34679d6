package wire

import (
	"context"

	"google.golang.org/grpc"
)

// Unary describes a method whose request keeps its bytes. Its interceptor, if
// any, sees the *Request as the request.
func Unary[M any, P Message[M]](service, method string, handle func(context.Context, *Request[M, P]) (*Response, error)) grpc.MethodDesc {
	full := "/" + service + "/" + method
	call := func(ctx context.Context, req any) (any, error) { return handle(ctx, req.(*Request[M, P])) }
	return grpc.MethodDesc{
		MethodName: method,
		Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := new(Request[M, P])
			if err := decode(req); err != nil {
				return nil, err
			}
			if intercept == nil {
				return call(ctx, req)
			}
			return intercept(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
		},
	}
}

// Stream describes a method with one request and a stream of responses.
func Stream[M any, P Message[M]](method string, handle func(*Request[M, P], grpc.ServerStream) error) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName:    method,
		ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			req := new(Request[M, P])
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			return handle(req, stream)
		},
	}
}

// Service describes a service made of the given methods, for registration with
// any implementation value.
func Service(name string, methods []grpc.MethodDesc, streams []grpc.StreamDesc) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Methods: methods, Streams: streams}
}
