package proto_test

import (
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/core-tools/hsu-core/go/api/proto"
)

// The names are part of the wire protocol and of every unit's registry in any language: they must never change.
func TestWireNames(t *testing.T) {
	file := proto.File_coreservice_proto
	services, messages := file.Services(), file.Messages()
	if services.Len() != 1 || messages.Len() != 2 || services.Get(0).Methods().Len() != 1 {
		t.Fatalf("%d services, %d messages, want one with one method, and two", services.Len(), messages.Len())
	}
	ping := services.Get(0).Methods().Get(0)
	options, _ := file.Options().(*descriptorpb.FileOptions)

	for _, c := range []struct{ what, got, want string }{
		{"registered path", file.Path(), "coreservice.proto"},
		{"package", string(file.Package()), "proto"},
		{"syntax", file.Syntax().String(), "proto3"},
		{"go_package", options.GetGoPackage(), "github.com/core-tools/hsu-core/api/proto"},
		{"service", string(services.Get(0).FullName()), "proto.CoreService"},
		{"service name in gRPC", proto.CoreService_ServiceDesc.ServiceName, "proto.CoreService"},
		{"method", string(ping.FullName()), "proto.CoreService.Ping"},
		{"full method", proto.CoreService_Ping_FullMethodName, "/proto.CoreService/Ping"},
		{"request", string(ping.Input().FullName()), "proto.PingRequest"},
		{"response", string(ping.Output().FullName()), "proto.PingResponse"},
		{"Version", proto.Version, "v1.0.0"},
		{"ProtocolVersion", proto.ProtocolVersion, "1.0"},
	} {
		if c.got != c.want {
			t.Errorf("%s = %q, want %q", c.what, c.got, c.want)
		}
	}
	if ping.IsStreamingClient() || ping.IsStreamingServer() {
		t.Error("Ping streams, want unary")
	}
	if n, m := ping.Input().Fields().Len(), ping.Output().Fields().Len(); n != 0 || m != 0 {
		t.Errorf("the messages have %d and %d fields, want none", n, m)
	}
	if n := file.Imports().Len(); n != 0 {
		t.Errorf("%d imports, want none", n)
	}
}
