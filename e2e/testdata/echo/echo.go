// Package echo is the service of the HSU echo unit, proto.EchoService, without generated code: one method Echo
// whose request and answer are one message each.
package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Service is the full name, Method the path of its method, File the name of its proto file.
const (
	Service = "proto.EchoService"
	Method  = "/" + Service + "/Echo"
	File    = "echoservice.proto"
)

// Register registers the service on server. handle returns the answer's message.
func Register(server *grpc.Server, handle func(ctx context.Context, message string) (string, error)) {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: Service, HandlerType: (*any)(nil), Metadata: File,
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, ctx context.Context, decode func(any) error,
				_ grpc.UnaryServerInterceptor,
			) (any, error) {
				request := new(wrapperspb.StringValue) // it has a string in field 1, too
				if err := decode(request); err != nil {
					return nil, err
				}
				answer, err := handle(ctx, request.GetValue())
				return wrapperspb.String(answer), err
			},
		}},
	}, handle)
}

// Call calls Echo once.
func Call(ctx context.Context, conn grpc.ClientConnInterface, message string, options ...grpc.CallOption) error {
	answer := new(wrapperspb.StringValue) // it has a string in field 1, too
	if err := conn.Invoke(ctx, Method, wrapperspb.String(message), answer, options...); err != nil {
		return err
	}
	if answer.GetValue() != message {
		return fmt.Errorf("Echo(%.50q) = %.50q", message, answer.GetValue())
	}
	return nil
}

// countPause is the time between two messages of a stream of the method Count.
const countPause = 10 * time.Millisecond

// count answers a message that is a number with as many messages, which are the numbers below it.
func count(stream grpc.ServerStream) error {
	message := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(message); err != nil {
		return err
	}
	most, err := strconv.Atoi(message.GetValue())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for i := range most {
		if err := stream.SendMsg(wrapperspb.String(strconv.Itoa(i))); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(countPause):
		}
	}
	return nil
}

// Streams makes a server answer each unknown method as a stream that handles every message as it arrives, except Count,
// which sends several messages. It does not answer gRPC's own methods, such as reflection, nor Ping.
func Streams(handle func(ctx context.Context, message string) (string, error)) grpc.ServerOption {
	return grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		if strings.HasPrefix(method, "/grpc.") || strings.HasPrefix(method, "/proto.CoreService/") {
			return status.Errorf(codes.Unimplemented, "unknown method %s", method)
		}
		if strings.HasSuffix(method, "/Count") {
			return count(stream)
		}
		for {
			message := new(wrapperspb.StringValue)
			switch err := stream.RecvMsg(message); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			answer, err := handle(stream.Context(), message.GetValue())
			if err == nil {
				err = stream.SendMsg(wrapperspb.String(answer))
			}
			if err != nil {
				return err
			}
		}
	})
}

// Slowly waits for a moment if the message contains "slow", so that a call is in flight.
func Slowly(ctx context.Context, message string) error {
	if !strings.Contains(message, "slow") {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// The descriptor for reflection.
func init() {
	message := func(name string) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("message"), JsonName: proto.String("message"), Number: proto.Int32(1),
			Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(File), Package: proto.String("proto"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{message("EchoRequest"), message("EchoResponse")},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("EchoService"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Echo"), InputType: proto.String(".proto.EchoRequest"),
				OutputType: proto.String(".proto.EchoResponse"),
			}},
		}},
	}, nil)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(file)
	}
	if err != nil {
		panic(err)
	}
}
