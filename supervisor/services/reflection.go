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

// The methods of gRPC reflection, in its present version and in the one before, which some have only. Both have the
// same messages.
const (
	ReflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	ReflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// maxReflection bounds an answer, in bytes.
const maxReflection = 4 << 20

// Reflection is a conversation with the reflection of an endpoint. It is for one goroutine, and ends with its context.
type Reflection struct {
	ctx    context.Context
	conn   grpc.ClientConnInterface
	stream grpc.ClientStream // nil until something was answered, or after an error
}

// NewReflection begins one. Nothing is sent before the first question.
func NewReflection(ctx context.Context, conn grpc.ClientConnInterface) *Reflection {
	return &Reflection{ctx: ctx, conn: conn}
}

// Ask sends a question and returns the answer. The error is a gRPC status, of code UNIMPLEMENTED where the endpoint has
// no reflection.
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
		stream, err = r.conn.NewStream(r.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.MaxCallRecvMsgSize(maxReflection))
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

func ask(stream grpc.ClientStream, question *reflection.ServerReflectionRequest) (*reflection.ServerReflectionResponse, error) {
	// Why it cannot be sent, if so, is what RecvMsg returns.
	_ = stream.SendMsg(question)
	answer := new(reflection.ServerReflectionResponse)
	if err := stream.RecvMsg(answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// List returns the names of the services that there are at the other end.
func (r *Reflection) List() ([]string, error) {
	answer, err := r.Ask(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}})
	if err != nil {
		return nil, err
	}
	list := answer.GetListServicesResponse()
	if len(list.GetService()) == 0 { // not even itself
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
