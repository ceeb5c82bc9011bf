package relay

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

// flooding is the header block of a call that uses no dynamic table.
var flooding = func() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/" + serviceName + "/UnaryCall"},
		{":authority", "a"},
		{"content-type", "application/grpc"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	return b.Bytes()
}()

// open writes the headers of a call, which are always the same.
func (p *peer) open(id uint32) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: flooding, EndHeaders: true})
}

// resetting holds the ways in which a client resets a stream, or makes the relay reset it (CVE-2025-8671).
var resetting = map[string]func(p *peer, id uint32) error{
	"RST_STREAM":           func(p *peer, id uint32) error { return p.WriteRSTStream(id, http2.ErrCodeCancel) },
	"WINDOW_UPDATE of 0":   func(p *peer, id uint32) error { return p.WriteWindowUpdate(id, 0) },
	"window beyond 2^31-1": func(p *peer, id uint32) error { return p.WriteWindowUpdate(id, frames.MaxWindow) },
	"DATA behind the end": func(p *peer, id uint32) error {
		_ = p.WriteData(id, true, []byte{0, 0, 0, 0, 0})
		return p.WriteData(id, true, []byte{0, 0, 0, 0, 0})
	},
	"HEADERS behind the end": func(p *peer, id uint32) error {
		_ = p.WriteData(id, true, []byte{0, 0, 0, 0, 0})
		return p.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, BlockFragment: flooding, EndHeaders: true, EndStream: true,
		})
	},
	"trailers of a request": func(p *peer, id uint32) error { return p.open(id) },
	"message too large": func(p *peer, id uint32) error {
		return p.WriteData(id, false, []byte{0, 0xff, 0xff, 0xff, 0xff})
	},
}

// flood opens and resets streams until the connection ends.
func (p *peer) flood(reset func(p *peer, id uint32) error) {
	p.AllowIllegalWrites = true
	for id := uint32(1); p.open(id) == nil && reset(p, id) == nil; id += 2 {
	}
}

func TestResetFloods(t *testing.T) {
	for name, reset := range resetting {
		t.Run(name, func(t *testing.T) {
			ep, _ := startBackend(t, &slow{})
			_, addr := startRelay(t, Options{}, ep)
			other := dial(t, addr)
			client := rawClient(t, addr)
			go client.flood(reset)
			client.wantGoAway(http2.ErrCodeEnhanceYourCalm)
			if _, err := other.UnaryCall(timeout(t), quick()); err != nil {
				t.Errorf("another client: %v", err)
			}
		})
	}
}

// slow is a server that counts its calls. They end with their contexts, except for quick ones.
type slow struct {
	testpb.UnimplementedTestServiceServer
	calls atomic.Int64
}

func (s *slow) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if in.ResponseSize > 0 {
		return &testpb.SimpleResponse{}, nil
	}
	s.calls.Add(1)
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// quick makes a call that a slow server answers.
func quick() *testpb.SimpleRequest { return &testpb.SimpleRequest{ResponseSize: 1} }

// A client that connects again and again stays the same peer. The number of its calls that reach the endpoint stays
// bounded, and another client of the same peer does not wait for long.
func TestResetsOverReconnects(t *testing.T) {
	s := &slow{}
	ep, _ := startBackend(t, s)
	r, addr := startRelay(t, Options{}, ep)
	began := time.Now()
	for range 10 {
		client := rawClient(t, addr)
		next[*http2.SettingsFrame](client, nil) // accepted: the kernel knows no user of a socket that is closed
		for id := uint32(1); id < 2*500; id += 2 {
			if client.open(id) != nil || client.WriteData(id, true, []byte{0, 0, 0, 0, 0}) != nil {
				break
			}
		}
		_ = client.Conn.Close()
		awaitThat(t, "the connection stays open", func() bool { return r.Stats().Clients == 0 })
	}
	good := dial(t, addr)
	for range 100 {
		if _, err := good.UnaryCall(timeout(t), quick()); status.Code(err) != codes.OK {
			t.Fatal(err)
		}
	}
	most := int64(1024 + 500 + time.Since(began)/(2*time.Millisecond))
	if n := s.calls.Load(); n > most {
		t.Errorf("%d calls reached the endpoint, want %d at most", n, most)
	}
}
