package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-core/go/api/proto"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
)

// NewGRPCClientGateway returns the unit at the other end of conn as a Contract. An error of its Ping carries the
// gRPC status (google.golang.org/grpc/status.Code reads it). A Ping does not wait for a unit that is not running:
// it returns Unavailable as soon as the connection is refused. The logger may be nil.
func NewGRPCClientGateway(conn grpc.ClientConnInterface, logger logging.Logger) domain.Contract {
	return &clientGateway{client: proto.NewCoreServiceClient(conn), logger: orSilent(logger)}
}

type clientGateway struct {
	client proto.CoreServiceClient
	logger logging.Logger
}

func (g *clientGateway) Ping(ctx context.Context) error {
	if _, err := g.client.Ping(ctx, &proto.PingRequest{}); err != nil {
		g.logger.Debugf("ping: %v", err)
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// RegisterGRPCServerHandler makes server answer the calls of proto.CoreService with handler. The caller gets the
// handler's error unchanged if the error has a gRPC status, otherwise with status Unknown. The logger may be nil.
func RegisterGRPCServerHandler(server grpc.ServiceRegistrar, handler domain.Contract, logger logging.Logger) {
	proto.RegisterCoreServiceServer(server, &serverHandler{handler: handler, logger: orSilent(logger)})
}

type serverHandler struct {
	proto.UnimplementedCoreServiceServer
	handler domain.Contract
	logger  logging.Logger
}

func (h *serverHandler) Ping(ctx context.Context, _ *proto.PingRequest) (*proto.PingResponse, error) {
	if err := h.handler.Ping(ctx); err != nil {
		h.logger.Debugf("ping answered with an error: %v", err)
		return nil, err
	}
	return &proto.PingResponse{}, nil
}
