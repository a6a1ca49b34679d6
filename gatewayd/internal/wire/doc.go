// Package wire lets encoded messages pass through the gRPC server: requests
// that keep the bytes they came as, and responses that are bytes already.
//
// A store needs a client's request as it was encoded, and answers with an
// encoded response that lacks only its header. To decode and encode it again
// at the edge would cost more than all that the edge adds. So the server's
// Codec knows two kinds of its own beside protobuf messages:
//
//   - Request holds the decoded message and the bytes that it was decoded from.
//     The message's byte fields share memory with them: neither may be changed.
//   - Encoded is any response that is buffers already; Response is one, a list of
//     byte strings that are concatenated on the wire.
//
// Handlers for Requests are registered through Unary and Stream instead of the
// generated code. To a client nothing differs.
package wire
