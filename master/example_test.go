package master_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
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

// The units of a master are of three kinds: gRPC servers that it calls, any programs, and processes that something else
// starts. Reload returns when the workers are ready.
func ExampleMaster_Reload() {
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

	err = m.Reload(ctx,
		unit.Spec{Name: "search", Path: "./hsu-worker", Disabled: true},
		unit.Spec{
			Name: "sleeper", Kind: unit.Managed, Port: unit.NoPort, Replicas: 1,
			Path: "sleep", Args: []string{"600"}, Start: unit.Start{Settle: time.Millisecond},
		},
		unit.Spec{
			Name: "cache", Kind: unit.Unmanaged, Replicas: 1,
			Discover: process.Pattern{PIDFile: filepath.Join(dir, "no-such.pid")},
		},
	)
	fmt.Println("reloaded:", err)
	fmt.Println(m.Summary())

	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// reloaded: <nil>
	// 1 of 2 workers ready, 0 requests processed
	// ended: <nil>
}
