//go:build e2e && linux && (crash || torture)

package crash

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/rpc"
)

// admin is the path of the admin socket of a rig's masters.
type admin string

// ask asks the running master for its state.
func (a admin) ask() (*adminpb.State, error) {
	conn, err := quickDial("unix://" + string(a))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := brief()
	defer cancel()
	answer, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{}, grpc.WaitForReady(true))
	return answer.GetState(), err
}

// scale has the running master give its unit n workers.
func (a admin) scale(ctx context.Context, n int32, wait bool) error {
	conn, err := quickDial("unix://" + string(a))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = adminpb.NewAdminClient(conn).Scale(ctx, &adminpb.ScaleRequest{Unit: "worker", Replicas: n, NoWait: !wait})
	return err
}

// act has the running master execute a verb.
func (a admin) act(ctx context.Context, req *adminpb.ActRequest) error {
	conn, err := quickDial("unix://" + string(a))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := adminpb.NewAdminClient(conn).Act(ctx, req)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// shutdown has the running master end. A master that is killed meanwhile is no error.
func (a admin) shutdown(ctx context.Context, detach bool) error {
	conn, err := quickDial("unix://" + string(a))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := adminpb.NewAdminClient(conn).Shutdown(ctx, &adminpb.ShutdownRequest{Detach: detach})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	if status.Code(err) == codes.Unavailable {
		return nil
	}
	return err
}

// registry makes a request to the registry of the running master.
func (a admin) registry(ask func(context.Context, adminpb.RegistryClient) error) error {
	conn, err := quickDial("unix://" + string(a))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := brief()
	defer cancel()
	return ask(ctx, adminpb.NewRegistryClient(conn))
}

// quickDial makes a connection that reconnects within milliseconds after its server is back.
func quickDial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), rpc.Interceptor(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: time.Millisecond, Multiplier: 1.5, MaxDelay: 10 * time.Millisecond,
			},
			// As in the harness: a slow server must not fail the calls that do not wait for it to be ready.
			MinConnectTimeout: harness.Patience,
		}))
}

// brief limits a call that takes milliseconds, or fails.
func brief() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), harness.Patience)
}
