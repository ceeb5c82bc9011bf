package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/internal/dial"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/store"
)

// answerWithin bounds how long a command waits for a master that does not respond.
const answerWithin = 10 * time.Second

const (
	// startingFor bounds how long a command waits for a master that holds the state and does not listen yet.
	startingFor = time.Second
	// startingPoll is the interval between two attempts to connect to a master that is starting.
	startingPoll = 5 * time.Millisecond
	// retryMost is the maximum pause between two attempts to reconnect.
	retryMost = time.Second
)

// hangsHint is the hint of errors of a master that is there and does not answer.
const hangsHint = "it hangs or is suspended: see its log, or restart it, its workers keep running"

// errOlder is returned for a request that the running master does not know.
var errOlder = exit.Hint(errors.New("the running master is of an older release"),
	"restart it, its workers keep running")

// dialAdmin connects to the running master of these folders. It waits up to startingFor for a master that is
// starting. It returns exit.ErrNoMaster if there is no master.
func dialAdmin(ctx context.Context, f folders) (*grpc.ClientConn, error) {
	path, err := awaitAdmin(ctx, f)
	switch {
	case errors.Is(err, exit.ErrNoMaster), errors.As(err, new(noAnswerError)):
		return nil, err
	case errors.Is(err, fs.ErrPermission):
		return nil, exit.Hint(fmt.Errorf("ask the master: %w", err),
			"only root and the user of the master have access")
	case err != nil:
		return nil, exit.Hint(fmt.Errorf("ask the master: %w", err),
			"check that --state-dir and --runtime-dir are those of the master")
	}
	var dialer net.Dialer
	conn, err := grpc.NewClient("passthrough:///admin.sock", dial.Retry(retryMost, answerWithin),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		rpc.Interceptor(), commandOfUnaryCalls(), commandOfStreams(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}))
	if err != nil {
		return nil, fmt.Errorf("ask the master: %w", err)
	}
	return conn, nil
}

type commandKey struct{}

// withCommand returns a context with the arguments of the command line, which calls to the master name.
func withCommand(ctx context.Context, args []string) context.Context {
	command := strings.Join(args, " ")
	return context.WithValue(ctx, commandKey{}, command[:min(len(command), api.MaxCommand)])
}

// nameCommand returns a context whose call names the command line.
func nameCommand(ctx context.Context) context.Context {
	command, _ := ctx.Value(commandKey{}).(string)
	return metadata.AppendToOutgoingContext(ctx, api.CommandKey, strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' { // metadata is printable ASCII
			return '?'
		}
		return r
	}, command))
}

func commandOfUnaryCalls() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption,
	) error {
		return invoke(nameCommand(ctx), method, req, reply, cc, opts...)
	})
}

func commandOfStreams() grpc.DialOption {
	return grpc.WithChainStreamInterceptor(func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
		opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		return open(nameCommand(ctx), desc, cc, method, opts...)
	})
}

// awaitAdmin returns the path of the admin socket when a master listens there. It dials without gRPC, which would
// hide the reason of a failure: a socket without a listener must be told apart from one that the user may not
// open, and from one whose queue of connections is full.
func awaitAdmin(ctx context.Context, f folders) (string, error) {
	var dialer net.Dialer
	for deadline := time.Now().Add(startingFor); ; {
		path := f.liveSocket() // a starting master may announce another path
		conn, err := dialer.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return path, conn.Close()
		case errors.Is(err, syscall.EAGAIN): // unlike a refusal, it says that the socket has a listener
			if time.Now().After(deadline) {
				err = fmt.Errorf("the master at %s accepts no connection, and its queue of them is full", path)
				return "", noAnswerError{exit.Hint(err, hangsHint)}
			}
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED):
			return "", err
		case time.Now().After(deadline) || store.Holder(f.state) == nil:
			return "", fmt.Errorf("%w at %s", exit.ErrNoMaster, path)
		}
		select {
		case <-time.After(startingPoll):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// readState returns the state from the running master, or from the state files if no master runs.
func readState(ctx context.Context, f folders) (*adminpb.State, error) {
	state, err := liveState(ctx, f)
	if !errors.Is(err, exit.ErrNoMaster) {
		return state, err
	}
	snap, err := store.ReadSnapshot(f.state)
	if err != nil {
		return nil, offline(f, err)
	}
	return api.OfflineState(snap, f.state), nil
}

// offline adds a hint to an error of reading the state files.
func offline(f folders, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return exit.Hint(fmt.Errorf("%w, and there is no state in %s", exit.ErrNoMaster, f.state),
			`start one with "hsu-master run", or name its --state-dir`)
	}
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		return exit.Hint(fmt.Errorf("%w (pid %d), but it does not answer at %s", exit.ErrHeld, locked.PID,
			f.liveSocket()),
			"it may be starting, or its runtime directory was removed: restart it, its workers keep running")
	}
	return err
}

// liveState returns the state from the running master. It returns exit.ErrNoMaster if there is none.
func liveState(ctx context.Context, f folders) (*adminpb.State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	resp, err := askState(ctx, f)
	for deadline := time.Now().Add(startingFor); status.Code(err) == codes.Unavailable && time.Now().Before(deadline); {
		// The master has ended: a process that is terminating may still accept a connection, but never answers.
		time.Sleep(startingPoll)
		resp, err = askState(ctx, f)
	}
	switch {
	case errors.Is(err, exit.ErrNoMaster):
		return nil, err
	case status.Code(err) == codes.DeadlineExceeded, err != nil && ctx.Err() != nil:
		return nil, f.silent(answerWithin) // before the next case: to connect has an error with a hint then
	case exit.NextStep(err) != "":
		return nil, err
	case status.Code(err) == codes.Unavailable:
		return nil, noAnswerError{fmt.Errorf("ask the master: %s", status.Convert(err).Message())}
	case err != nil:
		return nil, fmt.Errorf("ask the master: %s", status.Convert(err).Message())
	}
	if !f.stateIs(resp.GetState().GetStateDir()) {
		// The folder is a copy, and the socket path in it is that of the original's master.
		return nil, fmt.Errorf("%w for %s: the admin socket that it names belongs to another master",
			exit.ErrNoMaster, f.state)
	}
	return resp.GetState(), nil
}

// noAnswerError marks the error of a master whose socket takes connections, or has a full queue of them, and that has
// not answered: it hangs, has just ended, or its program is being replaced.
type noAnswerError struct{ error }

func (e noAnswerError) Unwrap() error { return e.error }

// silent returns the error for a master that has not answered within a time.
func (f folders) silent(within time.Duration) error {
	err := fmt.Errorf("the master at %s does not answer within %s", f.liveSocket(), within)
	return noAnswerError{exit.Hint(err, hangsHint)}
}

func askState(ctx context.Context, f folders) (*adminpb.GetStateResponse, error) {
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{})
}

// gone reports whether the master that answered before has ended.
func gone(ctx context.Context, f folders) bool {
	conn, err := dialAdmin(ctx, f)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, exit.ErrNoMaster)
}

// defaultAddress is the address of a master that is started without --port and --listen.
const defaultAddress = "127.0.0.1:50051"

// liveAddress returns the address to send requests to: that of the running master of these folders. If none runs
// and no folder was given, it returns defaultAddress.
func liveAddress(ctx context.Context, f folders) (string, error) {
	state, err := liveState(ctx, f)
	switch {
	case err == nil:
		return state.GetListen(), nil
	case errors.Is(err, exit.ErrNoMaster) && !f.given:
		return defaultAddress, nil
	case errors.Is(err, exit.ErrNoMaster):
		return "", exit.Hint(err,
			`start one with "hsu-master run", name its --state-dir, or give its address with --addr`)
	}
	return "", err
}
