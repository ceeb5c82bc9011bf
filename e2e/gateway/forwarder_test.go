//go:build e2e && linux

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A forwarder is a gateway written with grpc-go alone, which decodes and encodes each message. The master's
// behaviour is compared with it.
type forwarder struct {
	conns map[string]*grpc.ClientConn // by service
}

// startForwarder serves until the test ends, and returns the address.
func startForwarder(t *testing.T, offers ...offer) string {
	t.Helper()
	f := &forwarder{conns: map[string]*grpc.ClientConn{}}
	for _, o := range offers {
		conn, err := grpc.NewClient(o.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		f.conns[o.service] = conn
	}
	return serve(t, grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(f.forward)))
}

func (f *forwarder) forward(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	service, _ := splitMethod(method)
	conn := f.conns[service]
	if conn == nil {
		return status.Errorf(codes.Unimplemented, "unknown service %s", service)
	}
	ctx := in.Context()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method,
		grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	go func() {
		for {
			var message blob
			if err := in.RecvMsg(&message); errors.Is(err, io.EOF) {
				_ = out.CloseSend()
				return
			} else if err != nil {
				return // the call's context has ended with it
			}
			if out.SendMsg(&message) != nil {
				return // the other direction gets the reason
			}
		}
	}()
	headed := false
	for {
		var message blob
		err := out.RecvMsg(&message)
		if header, headErr := out.Header(); !headed && headErr == nil && header != nil {
			headed = true
			if err := in.SendHeader(header); err != nil {
				return err
			}
		}
		if err != nil {
			in.SetTrailer(out.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.SendMsg(&message); err != nil {
			return err
		}
	}
}

// splitMethod splits "/pkg.Service/Method".
func splitMethod(method string) (service, name string) {
	for i := len(method) - 1; i > 0; i-- {
		if method[i] == '/' {
			return method[1:i], method[i+1:]
		}
	}
	return "", method
}

// blob is a message in its wire format.
type blob []byte

// rawCodec does not change messages. It has the name of the default codec, so that the content type is the same.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(*blob)
	if !ok {
		return nil, fmt.Errorf("not a raw message: %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*message)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(*blob)
	if !ok {
		return fmt.Errorf("not a raw message: %T", v)
	}
	*message = data.Materialize()
	return nil
}

// listen opens a port of 127.0.0.1 that the kernel selects.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
