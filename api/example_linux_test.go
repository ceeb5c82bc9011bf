package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
)

// A gateway and an admin server in front of a supervisor without units, which processes the requests itself. Package
// master does the same, in the right order for workers.
func Example() {
	dir, err := os.MkdirTemp("", "api-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		panic(err)
	}
	s, err := supervisor.New(supervisor.Options{Store: db})
	if err != nil {
		panic(err)
	}
	business := api.NewBusiness(s, db)
	gateway, err := api.NewGateway(api.GatewayOptions{Services: s.Services(), Business: business, Counter: db})
	if err != nil {
		panic(err)
	}
	admin := api.NewAdminServer(&api.Admin{Store: db, Supervisor: s, Started: time.Now()}, business)

	ctx := context.Background()
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	private, err := api.ListenAdmin(ctx, dir+"/admin.sock")
	if err != nil {
		panic(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- gateway.Serve(public) }()
	go func() { ended <- admin.Serve(private) }()
	gateway.SetServing(true)

	client, operator := connect(public.Addr().String()), connect("unix:"+dir+"/admin.sock")
	answer, err := proto.NewMyBusinessServiceClient(client).ProcessData(ctx, &proto.ProcessRequest{Data: "hello"})
	if err != nil {
		panic(err)
	}
	fmt.Println(answer.GetResult())
	state, err := adminpb.NewAdminClient(operator).GetState(ctx, &adminpb.GetStateRequest{})
	if err != nil {
		panic(err)
	}
	fmt.Println("processed:", state.GetState().GetProcessedCount())

	gateway.Shutdown(ctx)
	admin.GracefulStop()
	fmt.Println("ended:", errors.Join(<-ended, <-ended, client.Close(), operator.Close(), db.Close()))
	// Output:
	// Processed: hello
	// processed: 1
	// ended: <nil>
}

func connect(target string) *grpc.ClientConn {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	return conn
}
