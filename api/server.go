package api

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Limits on the resources that a client can use.
const (
	// MaxMessageSize is the maximum size of a request in bytes; a larger one gets RESOURCE_EXHAUSTED.
	MaxMessageSize = 4 << 20
	// MaxStreams is the maximum number of concurrent streams on one connection.
	MaxStreams = 1024
)

// ServerOptions returns the options that limit the clients of one of the master's gRPC servers.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageSize),
		grpc.MaxConcurrentStreams(MaxStreams),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
}
