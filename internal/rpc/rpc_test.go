package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/core-tools/hsu-master/internal/rpc"
)

// A server refuses both attempts of a call, and the client learns of the second refusal before it writes the message.
func TestCallThatIsRefusedBeforeItsMessageIsSentHasAStatus(t *testing.T) {
	for name, wrap := range map[string]func(*grpc.ClientConn) grpc.ClientConnInterface{
		"a connection": func(cc *grpc.ClientConn) grpc.ClientConnInterface {
			return rpc.Conn{ClientConnInterface: cc}
		},
		"the interceptor": func(cc *grpc.ClientConn) grpc.ClientConnInterface { return cc },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			second := &secondAttempt{refused: make(chan struct{})}
			served := make(chan error, 1)
			go func() { served <- serveRefusals(l, second.refused) }()
			options := []grpc.DialOption{
				grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(second),
			}
			if name == "the interceptor" {
				options = append(options, rpc.Interceptor())
			}
			cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), options...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err = wrap(cc).Invoke(ctx, "/s/M", &emptypb.Empty{}, &emptypb.Empty{})
			if status.Code(err) != codes.Unavailable || !errors.Is(err, rpc.ErrRefused) {
				t.Errorf("%v, want ErrRefused, which is UNAVAILABLE", err)
			}
			_ = cc.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// secondAttempt holds the second attempt of a call between its headers and its message until the server has
// refused it.
type secondAttempt struct {
	attempts int
	refused  chan struct{}
}

func (s *secondAttempt) HandleRPC(_ context.Context, happened stats.RPCStats) {
	if _, ok := happened.(*stats.OutHeader); !ok {
		return
	}
	if s.attempts++; s.attempts == 2 {
		select {
		case <-s.refused:
		case <-time.After(time.Minute):
		}
	}
}

func (*secondAttempt) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (*secondAttempt) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*secondAttempt) HandleConn(context.Context, stats.ConnStats)                       {}

// serveRefusals serves one connection. It refuses the first stream when the stream's message has arrived, and the
// second one at once. It closes second when the client has read that refusal.
func serveRefusals(l net.Listener, second chan<- struct{}) error {
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	if err := l.Close(); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	framer := http2.NewFramer(nc, nc)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	refuse := func(stream uint32, refusals byte) error {
		return errors.Join(framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream),
			framer.WritePing(false, [8]byte{refusals}))
	}
	for streams := 0; ; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return ended(err)
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if streams++; streams == 2 {
				err = refuse(frame.StreamID, 2)
			}
		case *http2.DataFrame:
			err = refuse(frame.StreamID, 1)
		case *http2.PingFrame:
			if frame.IsAck() && frame.Data[0] == 2 {
				close(second)
			}
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		}
		if err != nil {
			return err
		}
	}
}

// ended returns nil for an error that means that the client has closed the connection.
func ended(err error) error {
	// A connection that is closed before the client has read everything is reset.
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}
