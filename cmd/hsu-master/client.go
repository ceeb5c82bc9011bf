package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
)

// answerWithin bounds how long a command waits for a master that hangs.
const answerWithin = 10 * time.Second

// dialAdmin connects to the running master of these folders; errNoMaster where
// none answers.
func dialAdmin(ctx context.Context, f folders) (*grpc.ClientConn, error) {
	path := f.liveSocket()
	var dialer net.Dialer
	// Not by gRPC, which would hide why: a socket that nobody listens on means
	// something else than one that may not be opened.
	first, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s", errNoMaster, path)
	case err != nil:
		return nil, hint(fmt.Errorf("ask the master: %w", err), "only root and the user that the master runs as may ask it")
	}
	_ = first.Close()
	conn, err := grpc.NewClient("passthrough:///"+adminSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}))
	if err != nil {
		return nil, fmt.Errorf("ask the master: %w", err)
	}
	return conn, nil
}

// readState asks the running master, and reads its file where none runs.
func readState(ctx context.Context, f folders) (*adminpb.State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	state, err := liveState(ctx, f)
	if !errors.Is(err, errNoMaster) {
		return state, err
	}
	snap, err := store.ReadSnapshot(f.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint(fmt.Errorf("%w, and there is no state in %s", errNoMaster, f.state),
			`start one with "hsu-master run", or name its --state-dir`)
	}
	if err != nil {
		return nil, err
	}
	return api.OfflineState(snap), nil
}

func liveState(ctx context.Context, f folders) (*adminpb.State, error) {
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the master: %s", status.Convert(err).Message())
	}
	return resp.GetState(), nil
}

// liveAddress is where to send requests: to the running master of these folders,
// or to the default port of one whose folders are not known.
func liveAddress(ctx context.Context, f folders) string {
	if address := os.Getenv("HSU_MASTER_ADDR"); address != "" {
		return address
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if state, err := liveState(ctx, f); err == nil {
		return state.GetListen()
	}
	return "127.0.0.1:50051"
}
