package master_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/master"
)

// A master without units processes requests itself. With units it would start their workers, or adopt those that an
// earlier master of the same state has left running.
func Example() {
	dir, err := os.MkdirTemp("", "master-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := master.New(master.Options{StateDir: dir, Listen: master.ListenTCP("127.0.0.1:0")})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(m.Run(ctx), m.Close()) }()
	<-m.Ready()

	conn, err := grpc.NewClient(m.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	answer, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx, &proto.ProcessRequest{Data: "hello"})
	if err != nil {
		panic(err)
	}
	fmt.Println(answer.GetResult())
	fmt.Println(m.Summary())
	_ = conn.Close()

	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// Processed: hello
	// standalone, 1 requests processed
	// ended: <nil>
}
