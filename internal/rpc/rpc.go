// Package rpc corrects the errors that grpc-go's client returns from unary calls.
package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrRefused is returned by a call that the server refused twice before its message was sent, so that the server cannot
// have acted on it. Its status is UNAVAILABLE.
//
// The first refusal makes grpc-go send the call again. If the second one arrives before the message is written, grpc-go
// returns a bare [io.EOF], which has no status, although Invoke promises one.
var ErrRefused error = refused{}

type refused struct{}

func (refused) Error() string                { return "the server refused the call" }
func (r refused) GRPCStatus() *status.Status { return status.New(codes.Unavailable, r.Error()) }

// Conn is a connection whose unary calls always fail with a gRPC status, regardless of how it was dialed.
type Conn struct{ grpc.ClientConnInterface }

// Invoke sends a unary call and waits for the answer.
func (c Conn) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	return withStatus(c.ClientConnInterface.Invoke(ctx, method, req, reply, opts...))
}

// Interceptor makes the unary calls of a connection fail with a gRPC status. It is an option of [grpc.NewClient].
func Interceptor() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(intercept)
}

func intercept(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	return withStatus(invoke(ctx, method, req, reply, cc, opts...))
}

func withStatus(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrRefused
	}
	return err
}
