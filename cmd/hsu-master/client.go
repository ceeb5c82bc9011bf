package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
	case errors.Is(err, fs.ErrPermission):
		return nil, hint(fmt.Errorf("ask the master: %w", err), "only root and the user that the master runs as may ask it")
	case err != nil:
		return nil, hint(fmt.Errorf("ask the master: %w", err), "see that --state-dir and --runtime-dir are those of the master")
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
	if err != nil {
		return nil, offline(f, err)
	}
	return api.OfflineState(snap), nil
}

// offline says what an error of reading the files means to who asks for the state.
func offline(f folders, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hint(fmt.Errorf("%w, and there is no state in %s", errNoMaster, f.state),
			`start one with "hsu-master run", or name its --state-dir`)
	}
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		return hint(fmt.Errorf("%w (pid %d), but it does not answer at %s", errHeld, locked.PID, f.liveSocket()),
			"it may be starting, or its runtime folder was removed: restart it, its workers live on")
	}
	return err
}

// errHeld means that a master holds the state, though it does not answer.
var errHeld = errors.New("a master holds the state")

func liveState(ctx context.Context, f folders) (*adminpb.State, error) {
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{})
	switch {
	case status.Code(err) == codes.DeadlineExceeded, ctx.Err() != nil:
		return nil, hint(fmt.Errorf("the master at %s does not answer within %s", f.liveSocket(), answerWithin),
			"it hangs or is suspended: see its log, or restart it, its workers live on")
	case err != nil && gone(ctx, f):
		return nil, fmt.Errorf("%w at %s any more", errNoMaster, f.liveSocket())
	case err != nil:
		return nil, fmt.Errorf("ask the master: %s", status.Convert(err).Message())
	}
	if !f.stateIs(resp.GetState().GetStateDir()) {
		// The folder is a copy, and with it the path to the original's socket.
		return nil, fmt.Errorf("%w for %s: the socket that it names is another's", errNoMaster, f.state)
	}
	return resp.GetState(), nil
}

// gone tells whether the master has ended that was asked: what is dying may still
// accept a connection, and never answers.
func gone(ctx context.Context, f folders) bool {
	conn, err := dialAdmin(ctx, f)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, errNoMaster)
}

// defaultAddress is where a master serves that was told nothing else.
const defaultAddress = "127.0.0.1:50051"

// liveAddress is where to send requests: to the running master of these folders,
// or, where nobody named a folder, to the default address.
func liveAddress(ctx context.Context, f folders) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	state, err := liveState(ctx, f)
	switch {
	case err == nil:
		return state.GetListen(), nil
	case errors.Is(err, errNoMaster) && !f.given:
		return defaultAddress, nil
	case errors.Is(err, errNoMaster):
		return "", hint(err, `start one with "hsu-master run", name its --state-dir, or say where it serves with --addr`)
	}
	return "", err
}
