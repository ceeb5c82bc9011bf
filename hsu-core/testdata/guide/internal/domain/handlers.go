package domain

import (
	"context"
	"fmt"
	"sync/atomic"

	coreLogging "github.com/core-tools/hsu-core/go/logging"
	"github.com/yourorg/my-hsu-master/api/proto"
	"google.golang.org/grpc"
)

type BusinessHandler struct {
	proto.UnimplementedMyBusinessServiceServer
	logger         coreLogging.Logger
	processedCount int64
}

func NewBusinessHandler(logger coreLogging.Logger) *BusinessHandler {
	return &BusinessHandler{
		logger: logger,
	}
}

func (h *BusinessHandler) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	h.logger.Infof("Processing data: %s (priority: %d)", req.Data, req.Priority)

	// Your business logic here
	result := fmt.Sprintf("Processed: %s", req.Data)

	// Update counter
	atomic.AddInt64(&h.processedCount, 1)

	return &proto.ProcessResponse{
		Result:  result,
		Success: true,
	}, nil
}

func (h *BusinessHandler) GetStatus(ctx context.Context, req *proto.StatusRequest) (*proto.StatusResponse, error) {
	count := atomic.LoadInt64(&h.processedCount)

	return &proto.StatusResponse{
		Status:         "running",
		ProcessedCount: count,
	}, nil
}

// RegisterBusinessService registers the business service with the gRPC server
func RegisterBusinessService(server grpc.ServiceRegistrar, handler *BusinessHandler) {
	proto.RegisterMyBusinessServiceServer(server, handler)
}
