// Package inproc is gRPC without a wire: the same generated clients and
// servers, joined by calls and channels inside one process.
//
// A daemon registers its services on a Server exactly as it would on a
// *grpc.Server, and its peers reach it through a Fabric, which is a
// dial.Dialer. So no daemon can tell whether the other end is a process of its
// own, and nothing is written twice for the two cases.
//
// # What differs from a wire
//
//  1. Messages are not copied: the receiver gets a message struct of its own
//     whose fields share the sender's memory. So a message is immutable from
//     the moment that it is sent, on both sides.
//  2. There is no window in bytes. Each direction of a stream holds at most
//     streamDepth messages; SendMsg blocks beyond that until the other end
//     receives, the stream ends or its context does.
//  3. A unary call runs on the caller's goroutine. A stream's handler runs on
//     one goroutine of its own, which the Server owns.
//
// # What does not differ
//
//  1. Every error is a status; a context's end is Canceled or DeadlineExceeded.
//  2. What a handler sent before it returned is received before its error.
//  3. After the handler has returned, SendMsg returns io.EOF.
//  4. Outgoing metadata arrives as incoming metadata.
//  5. A stopped Server answers Unavailable and ends its streams with it; an
//     address can be served again by a new Server, and clients that dialled
//     before reach the new one.
package inproc
