package services

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// The methods of gRPC reflection: the current version, and the previous one, the only one that some servers have.
// Both use the same messages.
const (
	ReflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	ReflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// maxReflection bounds an answer, in bytes.
const maxReflection = 4 << 20

// Reflection is a stream of reflection requests to an endpoint. It is for one goroutine, and ends with its
// context.
type Reflection struct {
	ctx    context.Context
	conn   grpc.ClientConnInterface
	stream grpc.ClientStream // nil before the first answer and after an error
}

// NewReflection returns a Reflection. It sends nothing before the first Ask.
func NewReflection(ctx context.Context, conn grpc.ClientConnInterface) *Reflection {
	return &Reflection{ctx: ctx, conn: conn}
}

// Ask sends a request and returns the answer. The error is a gRPC status; its code is UNIMPLEMENTED if the
// endpoint has no reflection.
func (r *Reflection) Ask(question *reflection.ServerReflectionRequest) (*reflection.ServerReflectionResponse, error) {
	if r.stream != nil {
		answer, err := ask(r.stream, question)
		if err != nil {
			r.stream = nil
		}
		return answer, err
	}
	var err error
	for _, method := range []string{ReflectionV1, ReflectionV1Alpha} {
		var stream grpc.ClientStream
		stream, err = r.conn.NewStream(r.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method,
			grpc.MaxCallRecvMsgSize(maxReflection))
		if err == nil {
			var answer *reflection.ServerReflectionResponse
			if answer, err = ask(stream, question); err == nil {
				r.stream = stream
				return answer, nil
			}
		}
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	return nil, err
}

func ask(
	stream grpc.ClientStream, question *reflection.ServerReflectionRequest,
) (*reflection.ServerReflectionResponse, error) {
	// If sending fails, RecvMsg returns the reason.
	_ = stream.SendMsg(question)
	answer := new(reflection.ServerReflectionResponse)
	if err := stream.RecvMsg(answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// List returns the names of the services of the endpoint.
func (r *Reflection) List() ([]string, error) {
	answer, err := r.Ask(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		return nil, err
	}
	list := answer.GetListServicesResponse()
	if len(list.GetService()) == 0 { // not even the reflection service itself
		if e := answer.GetErrorResponse(); e != nil {
			return nil, fmt.Errorf("reflection lists no services: %.200q", e.GetErrorMessage())
		}
		return nil, errors.New("reflection lists no services")
	}
	names := make([]string, 0, len(list.GetService()))
	for _, s := range list.GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}
