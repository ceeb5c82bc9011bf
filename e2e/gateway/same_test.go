//go:build e2e && linux

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A play is a call in which both ends follow a script: the ends must see the same, regardless of the gateway
// between them.
const playService, playMethod = "test.Play", "/test.Play/Act"

// script of a call; its first message contains the script as JSON.
type script struct {
	// The client's part.
	Metadata map[string][]string
	Sends    []int // sizes of its further messages
	Unary    bool  // called as a unary method
	Gzip     bool
	Deadline bool // the call has one, which is not reached
	Overrun  bool // the server never ends it: the deadline does
	Cancel   int  // cancelled after this many answers; 0: never
	// The server's part.
	Header, Trailer map[string][]string
	HeaderFirst     bool  // sent first, not with the first message
	Answers         []int // sizes of its messages
	Early           int   // number of the client's further messages read before the answer
	Code            codes.Code
	Message         string
	Details         bool
}

// seen is the view of a call from one end.
type seen struct {
	Metadata        map[string][]string // and the answer's header
	Trailer         map[string][]string
	Messages        []string
	Code            codes.Code
	Message         string
	Details         string
	Compression     string
	Deadline, Ended bool // it has a deadline; it ended before its script did
}

// randomScript returns a random script.
func randomScript(r *rand.Rand) script {
	size := func() int {
		switch r.IntN(12) {
		case 0:
			return 0
		case 1:
			return 300_000 + r.IntN(700_000)
		case 2, 3:
			return 16_000 + r.IntN(1000) // about a frame
		case 4:
			return 65_000 + r.IntN(1000) // about a window
		}
		return r.IntN(2000)
	}
	sizes := func(most int) (sizes []int) {
		for range r.IntN(most + 1) {
			sizes = append(sizes, size())
		}
		return sizes
	}
	pairs := func(prefix string) map[string][]string {
		m := map[string][]string{}
		for i := range r.IntN(5) {
			key := fmt.Sprintf("x-%s-%d", prefix, i)
			value := func() string { return strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(30)) + "~ !\"%,=" }
			switch r.IntN(4) {
			case 0:
				key += "-bin"
				value = func() string { return string([]byte{byte(r.IntN(256)), 0, byte(r.IntN(256))}[:r.IntN(4)]) }
			case 1:
				value = func() string { return strings.Repeat("v", r.IntN(800)) + "." } // all stay below any limit
			}
			for range 1 + r.IntN(3) {
				m[key] = append(m[key], strings.TrimSpace(value()))
			}
		}
		return m
	}
	s := script{
		Metadata: pairs("asked"), Sends: sizes(6), Gzip: r.IntN(4) == 0, Deadline: r.IntN(2) == 0,
		Header: pairs("header"), Trailer: pairs("trailer"), HeaderFirst: r.IntN(2) == 0, Answers: sizes(6),
	}
	if r.IntN(3) == 0 {
		s.Unary, s.Sends, s.Answers = true, nil, []int{size()}
	}
	s.Early = r.IntN(len(s.Sends) + 1)
	switch r.IntN(10) {
	case 0, 1, 2:
		s.Code = codes.Code(1 + r.IntN(16))
		s.Message = []string{
			"", "plain", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
			"100% wrong", strings.Repeat("long ", 300),
		}[r.IntN(5)]
		s.Details = r.IntN(3) == 0
		if s.Unary {
			s.Answers = nil
		}
	case 3:
		s.Overrun, s.Deadline = true, true
		if s.Unary {
			s.Answers = nil
		}
	case 4:
		if !s.Unary && len(s.Answers) > 0 {
			s.Cancel = 1 + r.IntN(len(s.Answers))
		}
	}
	return s
}

// playMessage returns a message of a size; its content follows from the number.
func playMessage(size, number int) *blob {
	message := make(blob, size)
	for i := range message {
		message[i] = byte(i*7 + number)
	}
	return &message
}

// told shortens a message to its hash.
func told(message blob) string {
	h := fnv.New64a()
	_, _ = h.Write(message)
	return fmt.Sprintf("%d bytes, %x", len(message), h.Sum64())
}

// stage is the server of the plays, with its views of calls by ID.
type stage struct {
	mu    sync.Mutex
	seen  map[string]seen
	began map[string]bool
	over  map[string]chan struct{}
}

// hasBegun reports whether the call has reached the server.
func (s *stage) hasBegun(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began[id]
}

// ended returns a channel that is closed when the server's end of the call is over.
func (s *stage) ended(id string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over[id] == nil {
		s.over[id] = make(chan struct{})
	}
	return s.over[id]
}

func (s *stage) act(_ any, stream grpc.ServerStream) (err error) {
	md, _ := metadata.FromIncomingContext(stream.Context())
	id := strings.Join(md["call-id"], "")
	s.mu.Lock()
	s.began[id] = true
	s.mu.Unlock()
	var saw seen
	defer func() {
		saw.Ended = stream.Context().Err() != nil
		s.mu.Lock()
		s.seen[id] = saw
		s.mu.Unlock()
		close(s.ended(id))
	}()
	saw.Metadata = ours(md)
	saw.Compression = *stream.Context().Value(compressionKey{}).(*string)
	_, saw.Deadline = stream.Context().Deadline()
	var first blob
	if err := stream.RecvMsg(&first); err != nil {
		return err
	}
	var play script
	if err := json.Unmarshal(first, &play); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if play.Header != nil {
		if err := stream.SetHeader(play.Header); err != nil {
			return err
		}
	}
	stream.SetTrailer(play.Trailer)
	if play.HeaderFirst {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
	}
	read := func(n int) error {
		for range n {
			var message blob
			if err := stream.RecvMsg(&message); err != nil {
				return err
			}
			saw.Messages = append(saw.Messages, told(message))
		}
		return nil
	}
	if err := read(play.Early); err != nil {
		return err
	}
	for i, size := range play.Answers {
		if err := stream.SendMsg(playMessage(size, i)); err != nil {
			return err
		}
	}
	if err := read(len(play.Sends) - play.Early); err != nil {
		return err
	}
	if play.Overrun || play.Cancel > 0 {
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	}
	var message blob
	if err := stream.RecvMsg(&message); !errors.Is(err, io.EOF) {
		return status.Errorf(codes.Internal, "a message more than was sent: %v", err)
	}
	answer := status.New(play.Code, play.Message)
	if play.Details {
		answer, err = answer.WithDetails(wrapperspb.String("a detail"), wrapperspb.Bytes([]byte{0, 1, 255}))
		if err != nil {
			return err
		}
	}
	return answer.Err()
}

// ours returns the pairs that the scripts name.
func ours(md metadata.MD) map[string][]string {
	m := map[string][]string{}
	for key, values := range md {
		if strings.HasPrefix(key, "x-") {
			m[key] = values
		}
	}
	return m
}

// compressionKey is the key under which watchCompression stores the compression of a request.
type compressionKey struct{}

type watchCompression struct{}

func (watchCompression) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, compressionKey{}, new(string))
}

func (watchCompression) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if header, ok := event.(*stats.InHeader); ok {
		*ctx.Value(compressionKey{}).(*string) = header.Compression
	}
}

func (watchCompression) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}

func (watchCompression) HandleConn(context.Context, stats.ConnStats) {}

// overrun is the deadline of a call that must reach it.
const overrun = 300 * time.Millisecond

// play makes the call of the script and returns the client's view.
func play(ctx context.Context, conn *grpc.ClientConn, id string, s script) (saw seen) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Deadline {
		timeout := 2 * harness.Patience
		if s.Overrun {
			timeout = overrun
		}
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.Join(s.Metadata, metadata.Pairs("call-id", id)))
	first, err := json.Marshal(s)
	if err != nil {
		return seen{Message: err.Error()}
	}
	var header, trailer metadata.MD
	options := []grpc.CallOption{grpc.ForceCodecV2(rawCodec{})}
	if s.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	if s.Unary {
		var answer blob
		request := blob(first)
		err = conn.Invoke(ctx, playMethod, &request, &answer,
			append(options, grpc.Header(&header), grpc.Trailer(&trailer))...)
		if err == nil {
			saw.Messages = append(saw.Messages, told(answer))
		}
	} else {
		header, trailer, err = playStream(ctx, cancel, conn, s, first, &saw, options)
	}
	saw.Metadata, saw.Trailer = ours(header), ours(trailer)
	answer := status.Convert(err)
	saw.Code, saw.Message = answer.Code(), answer.Message()
	if s.Overrun || s.Cancel > 0 {
		saw.Message = "" // it depends on timing which end reports first
		saw.Trailer = nil
	}
	saw.Details = fmt.Sprint(answer.Details())
	return saw
}

func playStream(ctx context.Context, cancel func(), conn *grpc.ClientConn, s script, first blob, saw *seen,
	options []grpc.CallOption,
) (header, trailer metadata.MD, err error) {
	stream, err := conn.NewStream(ctx,
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, playMethod, options...)
	if err != nil {
		return nil, nil, err
	}
	go func() {
		if stream.SendMsg(&first) != nil {
			return
		}
		for i, size := range s.Sends {
			if stream.SendMsg(playMessage(size, -i)) != nil {
				return // the answer has the reason
			}
		}
		_ = stream.CloseSend()
	}()
	for n := 1; ; n++ {
		var message blob
		if err = stream.RecvMsg(&message); err != nil {
			break
		}
		saw.Messages = append(saw.Messages, told(message))
		if n == s.Cancel {
			cancel()
			saw.Messages = nil // more may have arrived before it
			for ; err == nil; err = stream.RecvMsg(&message) {
			}
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	header, headErr := stream.Header()
	if err == nil {
		err = headErr
	}
	return header, stream.Trailer(), err
}

// Random calls look the same to both ends through the master, through a grpc-go forwarder, and directly. SEED=N
// repeats a run.
func TestCallsLookTheSameThroughTheGateway(t *testing.T) {
	t.Parallel()
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("SEED=%d", seed)
	theatre := &stage{seen: map[string]seen{}, began: map[string]bool{}, over: map[string]chan struct{}{}}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.StatsHandler(watchCompression{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: playService, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Act", ServerStreams: true, ClientStreams: true, Handler: theatre.act},
		},
	}, theatre)
	direct := serve(t, server)
	gateway, _ := openGateway(t, offer{playService, direct})
	ways := []string{"direct", "grpc-go", "gateway"}
	var conns []*grpc.ClientConn
	for _, at := range []string{direct, startForwarder(t, offer{playService, direct}), gateway} {
		conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}

	const calls, atOnce = 400, 8
	scripts := make(chan int)
	var players sync.WaitGroup
	for range atOnce {
		players.Go(func() {
			for n := range scripts {
				s := randomScript(rand.New(rand.NewPCG(seed, uint64(n))))
				var client, served [3]seen
				var all sync.WaitGroup
				for i, conn := range conns {
					all.Go(func() {
						id := fmt.Sprintf("%d %s", n, ways[i])
						ctx, cancel := context.WithTimeout(t.Context(), 3*harness.Patience)
						defer cancel()
						client[i] = play(ctx, conn, id, s)
						if s.Overrun && !theatre.hasBegun(id) {
							return // the deadline was reached before the server
						}
						select {
						case <-theatre.ended(id):
						case <-ctx.Done():
							t.Errorf("call %s has not ended at the server", id)
						}
						theatre.mu.Lock()
						served[i] = theatre.seen[id]
						theatre.mu.Unlock()
					})
				}
				all.Wait()
				theatre.compare(t, n, s, client, served)
			}
		})
	}
	for n := range calls {
		scripts <- n
	}
	close(scripts)
	players.Wait()
}

// compare compares the third view of each end with the two others.
func (*stage) compare(t *testing.T, n int, s script, client, served [3]seen) {
	text := sync.OnceValue(func() string { b, _ := json.Marshal(s); return string(bytes.ToValidUTF8(b, nil)) })
	for end, saw := range map[string][3]seen{"client": client, "server": served} {
		for i, way := range []string{"nothing", "a forwarder of grpc-go"} {
			want, got := saw[i], saw[2]
			if s.Overrun || s.Cancel > 0 {
				// Their progress until then depends on timing.
				want.Messages, got.Messages = nil, nil
				if end == "client" && s.Overrun {
					want.Metadata, got.Metadata = nil, nil
				}
				if end == "server" && !(want.Ended && got.Ended) {
					continue // it has not come as far
				}
			}
			if i == 1 { // the forwarder decodes and encodes messages
				want.Compression = got.Compression
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("call %d: the %s sees another thing than with %s between (-want +got):\n%s\nscript: %.2000s",
					n, end, way, diff, text())
			}
		}
	}
}
