package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// reflectionConversations bounds the endpoints that one reflection stream is forwarded to.
	reflectionConversations = 16
	// reflectionWithin bounds the wait for an endpoint's answer.
	reflectionWithin = 5 * time.Second
	// maxReflectionText bounds the size of a question and of an endpoint's error message, in bytes.
	maxReflectionText = 1024
)

// reflect makes srv answer both versions of gRPC reflection for its own services and for all routed services. It
// must be called after all services are registered. The services of the admin socket are not visible.
//
// A question about a routed service is forwarded to an endpoint that offers it. Files of two units may have the
// same name, because all units of HSU have a package "proto". A question about a file by its name therefore goes
// to the endpoint that answered the previous question of the stream, which is where the name comes from.
func reflect(srv *grpc.Server, routed *services.Registry, within time.Duration) {
	r := &reflector{routed: routed, within: within}
	srv.RegisterService(&reflection.ServerReflection_ServiceDesc, r)
	// Version v1alpha has the same messages under other names.
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "grpc.reflection.v1alpha.ServerReflection", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "ServerReflectionInfo", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return r.converse(stream) },
		}},
	}, r)
	r.own, r.files = ownFiles(srv)
}

// ownFiles returns the services of a server that have a descriptor, and their files with all imports.
func ownFiles(srv *grpc.Server) ([]string, *protoregistry.Files) {
	var names []string
	files := new(protoregistry.Files)
	for name := range srv.GetServiceInfo() {
		if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
			names = append(names, name)
			addFile(files, d.ParentFile())
		}
	}
	slices.Sort(names)
	return names, files
}

func addFile(files *protoregistry.Files, file protoreflect.FileDescriptor) {
	if _, err := files.FindFileByPath(file.Path()); err == nil {
		return
	}
	if err := files.RegisterFile(file); err != nil {
		return // a name conflict, which cannot occur: this program would not have linked
	}
	for i := range file.Imports().Len() {
		addFile(files, file.Imports().Get(i).FileDescriptor)
	}
}

// reflector answers questions about the master's own services and forwards those about routed services.
type reflector struct {
	reflection.UnimplementedServerReflectionServer
	routed *services.Registry
	within time.Duration // limit for an endpoint's answer
	own    []string      // sorted
	files  *protoregistry.Files
}

func (r *reflector) ServerReflectionInfo(
	stream grpc.BidiStreamingServer[reflection.ServerReflectionRequest, reflection.ServerReflectionResponse],
) error {
	return r.converse(stream)
}

// conversation is one reflection stream of a client.
type conversation struct {
	*reflector
	ctx context.Context
	// last is the endpoint that answered the last question; nil is the master itself.
	last  *services.Endpoint
	asked map[*services.Endpoint]talk
	// sent are the paths of the master's own files that the client already has.
	sent map[string]bool
}

// talk is the reflection stream to an endpoint, with the function that ends it.
type talk struct {
	*services.Reflection
	end context.CancelFunc
}

func (r *reflector) converse(stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel() // also ends the streams to endpoints
	c := &conversation{reflector: r, ctx: ctx, asked: make(map[*services.Endpoint]talk), sent: make(map[string]bool)}
	for {
		question := new(reflection.ServerReflectionRequest)
		if err := stream.RecvMsg(question); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer := c.answer(question)
		answer.ValidHost, answer.OriginalRequest = question.GetHost(), question
		if err := stream.SendMsg(answer); err != nil {
			return err
		}
	}
}

func (c *conversation) answer(q *reflection.ServerReflectionRequest) *reflection.ServerReflectionResponse {
	if proto.Size(q) > maxReflectionText {
		return refuse(codes.InvalidArgument, "the question is too long")
	}
	switch ask := q.GetMessageRequest().(type) {
	case *reflection.ServerReflectionRequest_ListServices:
		return c.list()
	case *reflection.ServerReflectionRequest_FileContainingSymbol:
		if d, err := c.files.FindDescriptorByName(protoreflect.FullName(ask.FileContainingSymbol)); err == nil {
			return c.describe(d.ParentFile())
		}
		return c.pass(q, c.candidates(ask.FileContainingSymbol))
	case *reflection.ServerReflectionRequest_FileByFilename:
		if c.last != nil {
			return c.pass(q, []*services.Endpoint{c.last})
		}
		if file, err := c.files.FindFileByPath(ask.FileByFilename); err == nil {
			return c.describe(file)
		}
		return c.pass(q, c.candidates(""))
	case *reflection.ServerReflectionRequest_FileContainingExtension,
		*reflection.ServerReflectionRequest_AllExtensionNumbersOfType:
		// The master's own messages have no extensions.
		if c.last == nil {
			return refuse(codes.NotFound, "no such extension")
		}
		return c.pass(q, []*services.Endpoint{c.last})
	}
	return refuse(codes.InvalidArgument, "the question is of no known kind")
}

// list returns the names of the master's own services and of all routed services.
func (c *conversation) list() *reflection.ServerReflectionResponse {
	names := append(slices.Clone(c.own), c.routed.Names()...)
	slices.Sort(names)
	list := &reflection.ListServiceResponse{}
	for _, name := range slices.Compact(names) {
		list.Service = append(list.Service, &reflection.ServiceResponse{Name: name})
	}
	return &reflection.ServerReflectionResponse{
		MessageResponse: &reflection.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list},
	}
}

// describe returns one of the master's own files with its imports. An import that the client already has is left
// out.
func (c *conversation) describe(file protoreflect.FileDescriptor) *reflection.ServerReflectionResponse {
	c.last = nil
	files := &reflection.FileDescriptorResponse{}
	var add func(protoreflect.FileDescriptor, bool) error
	add = func(file protoreflect.FileDescriptor, asked bool) error {
		if c.sent[file.Path()] && !asked {
			return nil
		}
		c.sent[file.Path()] = true
		b, err := proto.Marshal(protodesc.ToFileDescriptorProto(file))
		if err != nil {
			return err
		}
		files.FileDescriptorProto = append(files.FileDescriptorProto, b)
		for i := range file.Imports().Len() {
			if err := add(file.Imports().Get(i).FileDescriptor, false); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(file, true); err != nil {
		return refuse(codes.Internal, err.Error())
	}
	return &reflection.ServerReflectionResponse{
		MessageResponse: &reflection.ServerReflectionResponse_FileDescriptorResponse{FileDescriptorResponse: files},
	}
}

// candidates returns the endpoints to ask about a symbol, best first. If the symbol is a service or is inside
// one, these are the endpoints of that service. Otherwise it may be a message of any service: then the endpoint
// that answered the last question comes first.
func (c *conversation) candidates(symbol string) []*services.Endpoint {
	for name := symbol; name != ""; name, _ = parent(name) {
		if s := c.routed.Service(name); s != nil {
			return reachable(s.Endpoints())
		}
	}
	var all []*services.Endpoint
	if c.last != nil {
		all = append(all, c.last)
	}
	for _, name := range c.routed.Names() {
		// One endpoint of each service is enough: they are alike.
		if s := c.routed.Service(name); s != nil {
			if eps := reachable(s.Endpoints()); len(eps) > 0 && !slices.Contains(all, eps[0]) {
				all = append(all, eps[0])
			}
		}
	}
	return all
}

func parent(name string) (string, bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", false
	}
	return name[:i], true
}

func reachable(eps []*services.Endpoint) []*services.Endpoint {
	return slices.DeleteFunc(eps, func(ep *services.Endpoint) bool { return ep.Conn == nil })
}

// pass forwards the question to the candidates one after the other and returns the first answer that is not an
// error.
func (c *conversation) pass(
	q *reflection.ServerReflectionRequest, candidates []*services.Endpoint,
) *reflection.ServerReflectionResponse {
	answer := refuse(codes.NotFound, "nobody who can be asked knows that")
	for _, ep := range candidates {
		with, known := c.asked[ep]
		if !known && len(c.asked) >= reflectionConversations {
			break
		}
		if !known {
			ctx, end := context.WithCancel(c.ctx)
			with = talk{services.NewReflection(ctx, ep.Conn), end}
			c.asked[ep] = with
		}
		patience := time.AfterFunc(c.within, with.end)
		got, err := with.Ask(q)
		if !patience.Stop() {
			delete(c.asked, ep) // its stream was ended by the timeout
		}
		switch {
		case c.ctx.Err() != nil:
			return refuse(codes.Canceled, "the caller has gone")
		case status.Code(err) == codes.Unimplemented:
			answer = refuse(codes.NotFound, "who offers it has no reflection")
		case err != nil:
			answer = refuse(codes.Unavailable, fmt.Sprintf("ask who offers it: %s", cut(status.Convert(err).Message())))
		case got.GetErrorResponse() != nil:
			e := got.GetErrorResponse()
			e.ErrorMessage = cut(e.GetErrorMessage())
			answer = got
		default:
			c.last = ep
			return got
		}
	}
	return answer
}

func cut(text string) string { return sendable(text[:min(len(text), maxReflectionText)]) }

func refuse(code codes.Code, message string) *reflection.ServerReflectionResponse {
	return &reflection.ServerReflectionResponse{MessageResponse: &reflection.ServerReflectionResponse_ErrorResponse{
		ErrorResponse: &reflection.ErrorResponse{
			ErrorCode:    int32(code), //nolint:gosec // gRPC has 17 codes, from 0 to 16
			ErrorMessage: message,
		},
	}}
}
