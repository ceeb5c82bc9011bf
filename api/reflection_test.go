package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcreflection "google.golang.org/grpc/reflection"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// echoUnit is a server like a unit of HSU: all units have a package "proto" and files with the same names. mark is a
// field that identifies its messages.
func echoUnit(t *testing.T, service, mark string, alphaOnly bool) *services.Endpoint {
	t.Helper()
	str := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
	one := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		{
			Name: new("types.proto"), Package: new("proto"), Syntax: new("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{{
				Name: new(mark + "Message"),
				Field: []*descriptorpb.FieldDescriptorProto{{
					Name: new(mark), Number: new(int32(1)), Type: str, Label: one,
				}},
			}},
		},
		{
			Name: new("service.proto"), Package: new("proto"), Syntax: new("proto3"),
			Dependency: []string{"types.proto"},
			Service: []*descriptorpb.ServiceDescriptorProto{{
				Name: new(strings.TrimPrefix(service, "proto.")),
				Method: []*descriptorpb.MethodDescriptorProto{{
					Name:      new("Call"),
					InputType: new(".proto." + mark + "Message"), OutputType: new(".proto." + mark + "Message"),
				}},
			}},
		},
	}}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil), Metadata: "service.proto",
	}, nil)
	options := grpcreflection.ServerOptions{Services: srv, DescriptorResolver: resolver{files}}
	reflectionalpha.RegisterServerReflectionServer(srv, grpcreflection.NewServer(options))
	if !alphaOnly {
		reflection.RegisterServerReflectionServer(srv, grpcreflection.NewServerV1(options))
	}
	return connected(t, serveUnit(t, srv))
}

// resolver also finds the files of reflection itself.
type resolver struct{ *protoregistry.Files }

func connected(t *testing.T, address string) *services.Endpoint {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &services.Endpoint{Address: address, Conn: conn}
}

// gateway returns a connection to a master's public server with two units and an endpoint without reflection.
func gateway(t *testing.T) *grpc.ClientConn {
	t.Helper()
	db, s := standalone(t)
	routed := services.New(services.Options{})
	routed.Add(echoUnit(t, "proto.Echo", "left", false), "proto.Echo")
	routed.Add(echoUnit(t, "proto.Other", "right", true), "proto.Other")
	routed.Add(connected(t, serveUnit(t, grpc.NewServer())), "pkg.Mute")
	routed.Offer("somebody", "pkg.Nobody")
	g, err := NewGateway(GatewayOptions{Services: routed, Business: NewBusiness(s, db), Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, g, g.Close, "tcp", "127.0.0.1:0")
}

// talking is a reflection stream in either version.
type talking struct {
	t      *testing.T
	stream grpc.ClientStream
}

func converse(t *testing.T, conn *grpc.ClientConn, method string) talking {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	return talking{t, stream}
}

func (c talking) ask(q *reflection.ServerReflectionRequest) *reflection.ServerReflectionResponse {
	c.t.Helper()
	if err := c.stream.SendMsg(q); err != nil {
		c.t.Fatal(err)
	}
	answer := new(reflection.ServerReflectionResponse)
	if err := c.stream.RecvMsg(answer); err != nil {
		c.t.Fatal(err)
	}
	if !proto.Equal(answer.GetOriginalRequest(), q) {
		c.t.Errorf("the answer to %v says that it is one to %v", q, answer.GetOriginalRequest())
	}
	return answer
}

func (c talking) symbol(name string) *reflection.ServerReflectionResponse {
	c.t.Helper()
	return c.ask(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name},
	})
}

func (c talking) file(name string) *reflection.ServerReflectionResponse {
	c.t.Helper()
	return c.ask(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_FileByFilename{FileByFilename: name},
	})
}

// contents returns what an answer describes: files, services, messages and their fields.
func contents(t *testing.T, answer *reflection.ServerReflectionResponse) string {
	t.Helper()
	if e := answer.GetErrorResponse(); e != nil {
		return codes.Code(e.GetErrorCode()).String() //nolint:gosec // a gRPC code is never negative
	}
	var words []string
	for _, b := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var f descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		words = append(words, f.GetName())
		for _, s := range f.GetService() {
			words = append(words, s.GetName())
		}
		for _, m := range f.GetMessageType() {
			words = append(words, m.GetName())
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestReflectionOfAllThatIsRouted(t *testing.T) {
	conn := gateway(t)
	for _, method := range []string{services.ReflectionV1, services.ReflectionV1Alpha} {
		t.Run(method, func(t *testing.T) {
			c := converse(t, conn, method)
			list := c.ask(&reflection.ServerReflectionRequest{
				MessageRequest: &reflection.ServerReflectionRequest_ListServices{},
			})
			var names []string
			for _, s := range list.GetListServicesResponse().GetService() {
				names = append(names, s.GetName())
			}
			want := "grpc.health.v1.Health grpc.reflection.v1.ServerReflection " +
				"grpc.reflection.v1alpha.ServerReflection pkg.Mute pkg.Nobody " +
				"proto.CoreService proto.Echo proto.MyBusinessService proto.Other"
			if got := strings.Join(names, " "); got != want {
				t.Errorf("lists\n%s, want\n%s", got, want)
			}
			const own = "MyBusinessService ProcessRequest ProcessResponse StatusRequest StatusResponse myservice.proto"
			symbol := func(name string) string { return contents(t, c.symbol(name)) }
			file := func(name string) string { return contents(t, c.file(name)) }
			itself := strings.Split(method, "/")[1]
			for _, step := range []struct{ what, answer, want string }{
				// The master's own services.
				{"own service", symbol("proto.MyBusinessService"), own},
				{"own method", symbol("proto.MyBusinessService.ProcessData"), own},
				{"own file", file("coreservice.proto"), symbol("proto.CoreService")},
				{"reflection itself", fmt.Sprint(strings.Contains(symbol(itself), "ServerReflection")), "true"},
				// The services of a unit, with their imports: the other unit has the same file names.
				{"left service", symbol("proto.Echo"), "Echo leftMessage service.proto types.proto"},
				{"left file", file("types.proto"), "leftMessage types.proto"},
				{"right method", symbol("proto.Other.Call"), "Other rightMessage service.proto types.proto"},
				{"right file", file("types.proto"), "rightMessage types.proto"},
				{"right message", symbol("proto.rightMessage"), "rightMessage types.proto"},
				{"left message, of the other", symbol("proto.leftMessage"), "leftMessage types.proto"},
				{"left file again", file("service.proto"), "Echo service.proto"},
				// Names without an answer.
				{"no reflection", symbol("pkg.Mute"), "NotFound"},
				{"nobody is ready", symbol("pkg.Nobody"), "NotFound"},
				{"unknown", symbol("pkg.Unknown.Message"), "NotFound"},
				{"nothing", symbol(""), "NotFound"},
				{"no question", contents(t, c.ask(&reflection.ServerReflectionRequest{})), "InvalidArgument"},
				{"a long one", symbol(strings.Repeat("x", 2*maxReflectionText)), "InvalidArgument"},
				// The services of the admin socket.
				{"admin service", symbol("hsu.master.admin.v1.Admin"), "NotFound"},
				{"admin file", contents(t, converse(t, conn, method).file("hsu_master_admin.proto")), "NotFound"},
				{"store", symbol("hsu.master.store.v1.Worker"), "NotFound"},
			} {
				if step.answer != step.want {
					t.Errorf("%s: got %q, want %q", step.what, step.answer, step.want)
				}
			}
		})
	}
}

// If the first question of a stream is about a file by its name, any unit with such a file may answer.
func TestReflectionFindsAFileOfAUnit(t *testing.T) {
	got := contents(t, converse(t, gateway(t), services.ReflectionV1).file("service.proto"))
	if got != "Echo leftMessage service.proto types.proto" && got != "Other rightMessage service.proto types.proto" {
		t.Errorf("got %q", got)
	}
}

func TestReflectionOfAUnitThatHangs(t *testing.T) {
	hang := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return nil
	}))
	routed := services.New(services.Options{})
	routed.Add(connected(t, serveUnit(t, hang)), "pkg.Hang")
	srv := grpc.NewServer()
	control.RegisterGRPCServerHandler(srv, domain.NewDefaultHandler(quiet), quiet)
	const within = 100 * time.Millisecond
	reflect(srv, routed, within)
	c := converse(t, serveOn(t, srv, srv.Stop, "tcp", "127.0.0.1:0"), services.ReflectionV1)
	began := time.Now()
	if got := contents(t, c.symbol("pkg.Hang")); got != "Unavailable" || time.Since(began) < within {
		t.Errorf("got %q after %v, want UNAVAILABLE after %v", got, time.Since(began), within)
	}
	if got := contents(t, c.symbol("proto.CoreService")); !strings.Contains(got, "CoreService") {
		t.Errorf("the next question: %q", got)
	}
}
