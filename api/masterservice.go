package api

import (
	"context"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/supervisor"
)

// masterServiceName is the service that programs of the framework call to ask a master for its status.
const masterServiceName = "proto.MasterService"

// registerMasterService makes srv answer /proto.MasterService/Status. The service's messages have the same names
// as those of MyBusinessService, so generated code for both cannot be linked into one program. On the wire its
// StatusResponse is the same message with the count left out. The service has no descriptor, so reflection does
// not list it.
func registerMasterService(srv *grpc.Server, business proto.MyBusinessServiceServer) {
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: masterServiceName,
		HandlerType: (*proto.MyBusinessServiceServer)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Status", Handler: masterStatus}},
	}, business)
}

func masterStatus(
	business any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor,
) (any, error) {
	req := new(proto.StatusRequest)
	if err := decode(req); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, req any) (any, error) {
		own, err := business.(proto.MyBusinessServiceServer).GetStatus(ctx, req.(*proto.StatusRequest))
		if err != nil {
			return nil, err
		}
		return &proto.StatusResponse{Status: "hsu-master: " + masterWord(own.GetStatus())}, nil
	}
	if intercept == nil {
		return answer(ctx, req)
	}
	return intercept(ctx, req, &grpc.UnaryServerInfo{
		Server: business, FullMethod: "/" + masterServiceName + "/Status",
	}, answer)
}

// masterWord returns OK for a running master, as the framework's own master does, and otherwise the status
// unchanged.
func masterWord(status string) string {
	if status == string(supervisor.Running) {
		return "OK"
	}
	return status
}
