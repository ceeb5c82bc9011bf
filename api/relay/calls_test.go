package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// echo answers with the data that it receives.
type echo struct {
	testpb.UnimplementedTestServiceServer
}

func (echo) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for k, v := range md {
		if strings.HasPrefix(k, "x-echo") || k == "traceparent" || k == "tracestate" {
			_ = grpc.SetHeader(ctx, metadata.MD{k: v})
			_ = grpc.SetTrailer(ctx, metadata.MD{"end-" + k: v})
		}
	}
	if s := in.GetResponseStatus(); s != nil {
		st, err := status.New(codes.Code(s.GetCode()), s.GetMessage()).WithDetails(
			&errdetails.ErrorInfo{Reason: "told to"})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	if deadline, ok := ctx.Deadline(); ok && len(md["x-deadline"]) > 0 {
		_ = grpc.SetHeader(ctx, metadata.Pairs("deadline", deadline.Format("15:04:05.000")))
	}
	if n := in.GetResponseSize(); n > 0 {
		return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, n)}}, nil
	}
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (echo) FullDuplexCall(
	stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse],
) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func (echo) StreamingInputCall(
	stream grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse],
) error {
	var n int
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
		}
		if err != nil {
			return err
		}
		n += len(in.GetPayload().GetBody())
	}
}

func (echo) StreamingOutputCall(
	in *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse],
) error {
	for _, p := range in.GetResponseParameters() {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{
			Payload: &testpb.Payload{Body: make([]byte, p.GetSize())},
		}); err != nil {
			return err
		}
	}
	return nil
}

func simple(n int) *testpb.SimpleRequest {
	return &testpb.SimpleRequest{Payload: &testpb.Payload{Body: bytes.Repeat([]byte{'x'}, n)}}
}

func TestUnarySizes(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := dial(t, addr)
	for _, n := range []int{0, 1, 64, 4096, 16 << 10, 65535, 65536, 100_000, 1 << 20, 4<<20 - 100} {
		for range 3 {
			out, err := client.UnaryCall(timeout(t), simple(n))
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if len(out.GetPayload().GetBody()) != n {
				t.Errorf("%d bytes came back as %d", n, len(out.GetPayload().GetBody()))
			}
		}
	}
}

func TestMetadataAndTrailersPass(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := dial(t, addr)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := metadata.AppendToOutgoingContext(timeout(t), "x-echo", "a", "x-echo", "b", "x-echo-bin", "\x00\xff\x01",
		"traceparent", trace, "tracestate", "vendor=1")
	for range 3 {
		var header, trailer metadata.MD
		if _, err := client.UnaryCall(ctx, simple(1), grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(header["x-echo"], ","); got != "a,b" {
			t.Errorf("x-echo = %q, want a,b", got)
		}
		if got := strings.Join(trailer["end-x-echo-bin"], ","); got != "\x00\xff\x01" {
			t.Errorf("binary metadata in trailers = %q", got)
		}
		if got := strings.Join(header["traceparent"], ",") +
			strings.Join(header["tracestate"], ","); got != trace+"vendor=1" {
			t.Errorf("trace context = %q", got)
		}
	}
}

func TestStatusWithDetails(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := dial(t, addr)
	const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
	_, err := client.UnaryCall(timeout(t), &testpb.SimpleRequest{
		ResponseStatus: &testpb.EchoStatus{Code: 9, Message: message},
	})
	s := status.Convert(err)
	if s.Code() != codes.FailedPrecondition || s.Message() != message || len(s.Details()) != 1 {
		t.Errorf("status = %v %q with %d details", s.Code(), s.Message(), len(s.Details()))
	}
}

func TestCompressionPasses(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	out, err := dial(t, addr).UnaryCall(timeout(t), simple(100_000), grpc.UseCompressor(gzip.Name))
	if err != nil || len(out.GetPayload().GetBody()) != 100_000 {
		t.Errorf("%d bytes, %v", len(out.GetPayload().GetBody()), err)
	}
}

func TestStreams(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := dial(t, addr)
	t.Run("bidirectional", func(t *testing.T) {
		s, err := client.FullDuplexCall(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			n := i * 997
			if err := s.Send(&testpb.StreamingOutputCallRequest{
				Payload: &testpb.Payload{Body: make([]byte, n)},
			}); err != nil {
				t.Fatal(err)
			}
			out, err := s.Recv()
			if err != nil || len(out.GetPayload().GetBody()) != n {
				t.Fatalf("message %d: %d bytes, %v", i, len(out.GetPayload().GetBody()), err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end = %v", err)
		}
	})
	t.Run("client", func(t *testing.T) {
		s, err := client.StreamingInputCall(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := s.Send(&testpb.StreamingInputCallRequest{
				Payload: &testpb.Payload{Body: make([]byte, 30_000)},
			}); err != nil {
				t.Fatal(err)
			}
		}
		out, err := s.CloseAndRecv()
		if err != nil || out.GetAggregatedPayloadSize() != 3_000_000 {
			t.Errorf("%d bytes, %v", out.GetAggregatedPayloadSize(), err)
		}
	})
	t.Run("server", func(t *testing.T) {
		in := &testpb.StreamingOutputCallRequest{}
		for i := range 100 {
			in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: int32(i * 1000)})
		}
		s, err := client.StreamingOutputCall(timeout(t), in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			out, err := s.Recv()
			if err != nil || len(out.GetPayload().GetBody()) != i*1000 {
				t.Fatalf("message %d: %d bytes, %v", i, len(out.GetPayload().GetBody()), err)
			}
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end = %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		s, err := client.FullDuplexCall(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		_ = s.CloseSend()
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end = %v", err)
		}
	})
}
