package baseline

import (
	"context"
	"errors"
	"fmt"
	"net"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-core/go/control"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/proto"
)

// Idle is a gRPC server with a bbolt database and connections to workers, none of which are used.
type Idle struct {
	db     *bolt.DB
	server *grpc.Server
	served chan error
	conns  []control.Connection
}

// NewIdle serves on the listener, opens a database in dir and connects to the workers on these ports. Each worker
// has answered a Ping when NewIdle returns.
func NewIdle(ctx context.Context, dir string, listener net.Listener, ports []int) (_ *Idle, err error) {
	idle := &Idle{server: grpc.NewServer(api.ServerOptions()...), served: make(chan error, 1)}
	proto.RegisterMyBusinessServiceServer(idle.server, proto.UnimplementedMyBusinessServiceServer{})
	go func() { idle.served <- idle.server.Serve(listener) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, idle.Close())
		}
	}()
	if idle.db, err = openState(dir); err != nil {
		return nil, err
	}
	for _, port := range ports {
		conn, err := control.NewConnection(control.ConnectionOptions{AttachPort: port}, nil)
		if err != nil {
			return nil, err
		}
		idle.conns = append(idle.conns, conn)
		if err := control.NewGRPCClientGateway(conn.GRPC(), nil).Ping(ctx); err != nil {
			return nil, fmt.Errorf("worker on port %d: %w", port, err)
		}
	}
	return idle, nil
}

// Close closes all of them; the workers go on running.
func (i *Idle) Close() error {
	for _, conn := range i.conns {
		conn.Shutdown()
	}
	i.server.Stop()
	err := <-i.served
	if i.db != nil {
		err = errors.Join(err, i.db.Close())
	}
	return err
}
