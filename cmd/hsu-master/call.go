package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/internal/dial"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

func callFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{
			Name: "addr", EnvVars: []string{"HSU_MASTER_ADDR"},
			Usage: "`HOST:PORT` address of the master (default: that of the running master; if no directory is " +
				"given and no master runs, 127.0.0.1:50051)",
		},
		&cli.DurationFlag{
			Name: "timeout", Value: 10 * time.Second,
			Usage: "`DURATION` time to wait for the answer",
		},
	}, credentialFlags()...)
}

func callCommand() *cli.Command {
	return group("call", "send a request to the master",
		leaf("process-data", "process one item", processData, append([]cli.Flag{
			&cli.StringFlag{Name: "data", Usage: "`TEXT` text of the item; - reads it from standard input"},
			&cli.IntFlag{Name: "priority", Usage: "`N` priority of the item"},
			&cli.StringFlag{
				Name:  "request-id",
				Usage: "`ID` id of the request; requests with the same id are counted once and get the same answer",
			},
			jsonOutput(),
		}, callFlags()...)...),
		leaf("get-status", "print the status of the master and its count of requests", getStatus,
			append([]cli.Flag{jsonOutput()}, callFlags()...)...))
}

func pingCommand() *cli.Command {
	return leaf("ping", "check that the master answers (exit 3: no master is running)", func(c *cli.Context) error {
		return call(c, func(ctx context.Context, conn *grpc.ClientConn, _ grpc.CallOption) error {
			asked := time.Now()
			core := control.NewGRPCClientGateway(conn, probe.CoreLogger(slog.New(slog.DiscardHandler)))
			if err := core.Ping(ctx); err != nil {
				return err
			}
			took, address := time.Since(asked).Round(time.Microsecond), conn.Target()[len(passthrough):]
			if c.Bool(jsonFlag) {
				return render.JSON(c.App.Writer, pingJSON{address, took.Seconds()})
			}
			_, err := fmt.Fprintf(c.App.Writer, "%s answered in %s\n", address, took)
			return err
		})
	}, append([]cli.Flag{jsonOutput()}, callFlags()...)...)
}

// pingJSON is the output of "ping --json". Scripts depend on it.
type pingJSON struct {
	Address    string  `json:"address"`
	AnsweredIn float64 `json:"answered_in"` // seconds
}

func processData(c *cli.Context) error {
	priority := c.Int("priority")
	if priority != int(int32(priority)) { //nolint:gosec // this checks for an overflow
		return exit.Usagef("--priority %d: must be a number of 32 bits", priority)
	}
	id := c.String("request-id")
	if c.IsSet("request-id") {
		if err := records.CheckRequestID(id); err != nil {
			return exit.Usagef("--request-id: %w", err)
		}
	}
	data := c.String("data")
	if data == "-" {
		input, err := io.ReadAll(os.Stdin)
		if err != nil {
			return fmt.Errorf("read the data: %w", err)
		}
		data = string(input)
	}
	return call(c, func(ctx context.Context, conn *grpc.ClientConn, reached grpc.CallOption) error {
		if id != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, api.RequestIDKey, id)
		}
		resp, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx,
			&proto.ProcessRequest{Data: data, Priority: int32(priority)}, reached) //nolint:gosec // checked above
		if err != nil {
			return err
		}
		if c.Bool(jsonFlag) {
			return render.JSON(c.App.Writer, processedJSON{resp.GetResult(), resp.GetSuccess()})
		}
		_, err = fmt.Fprintln(c.App.Writer, resp.GetResult())
		return err
	})
}

// The JSON output of the calls of the business service.
type (
	processedJSON struct {
		Result  string `json:"result"`
		Success bool   `json:"success"`
	}
	businessJSON struct {
		Status         string `json:"status"`
		ProcessedCount int64  `json:"processed_count"`
	}
)

func getStatus(c *cli.Context) error {
	return call(c, func(ctx context.Context, conn *grpc.ClientConn, reached grpc.CallOption) error {
		resp, err := proto.NewMyBusinessServiceClient(conn).GetStatus(ctx, &proto.StatusRequest{}, reached)
		if err != nil {
			return err
		}
		if c.Bool(jsonFlag) {
			return render.JSON(c.App.Writer, businessJSON{resp.GetStatus(), resp.GetProcessedCount()})
		}
		_, err = fmt.Fprintf(c.App.Writer, "%s, %d requests processed\n", resp.GetStatus(), resp.GetProcessedCount())
		return err
	})
}

// passthrough makes gRPC pass the address to the dialer without resolving it.
const passthrough = "passthrough:///"

// call connects to the master, makes the call, and turns a failure into a message with a hint.
func call(c *cli.Context, do func(context.Context, *grpc.ClientConn, grpc.CallOption) error) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	address := c.String("addr")
	if address == "" {
		if address, err = liveAddress(c.Context, f); err != nil {
			return err
		}
	}
	if c.Duration("timeout") <= 0 {
		return exit.Usagef("--timeout %s: must be above 0, such as 10s", c.Duration("timeout"))
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return exit.Usagef("--addr %q: must be HOST:PORT", address)
	}
	creds, err := credentialsOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	conn, err := grpc.NewClient(passthrough+address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(),
		rpc.Interceptor(), dial.Retry(retryMost, c.Duration("timeout")))
	if err != nil {
		return exit.Usagef("--addr %q: %w", address, err)
	}
	defer func() { _ = conn.Close() }()
	var reached peer.Peer
	err = do(ctx, conn, grpc.Peer(&reached))
	if err == nil {
		return nil
	}
	said, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err)
	if !ok {
		return err
	}
	answer := said.GRPCStatus()
	text := render.Printable(plainly(answer.Message())) // may be from a worker, which must not control the terminal
	switch {
	case answer.Code() == codes.Unavailable && reached.Addr == nil && notSecuredAlike(text, c.String("tls-ca") != ""):
		return exit.Hint(fmt.Errorf("%s: %s", address, text),
			"compare --tls-ca, --tls-cert and --tls-name with the flags of the master")
	case answer.Code() == codes.Unavailable && reached.Addr == nil:
		return exit.Hint(fmt.Errorf("%w at %s: %s", exit.ErrNoMaster, address, text),
			`start one with "hsu-master run", or name another --addr`)
	case answer.Code() == codes.ResourceExhausted:
		return exit.Hint(fmt.Errorf("%s: %s", address, text), "send less at a time")
	case answer.Code() == codes.DeadlineExceeded:
		return exit.Hint(fmt.Errorf("%s did not answer within %s", address, c.Duration("timeout")),
			`see "hsu-master status", or wait longer with --timeout`)
	}
	return fmt.Errorf("%s: %s: %s", address, answer.Code(), text)
}

// noConnection and noDial match the text that gRPC puts around the reason of a connection failure.
var (
	noConnection = regexp.MustCompile(`^connection error: desc = "(?:transport: )?(.*)"$`)
	noDial       = regexp.MustCompile(`^[Ee]rror while dialing: dial \w+:? (?:\S+:\d+: )?(?:connect: )?(.*)$`)
)

// plainly returns the reason without that text.
func plainly(text string) string {
	for _, around := range []*regexp.Regexp{noConnection, noDial} {
		if found := around.FindStringSubmatch(text); found != nil {
			text = found[1]
		}
	}
	return text
}

// notSecuredAlike reports whether a connection failed because only one side uses TLS, or because one side
// rejected the other's certificate. A server that rejects the client's certificate may close the connection while
// the client still writes.
func notSecuredAlike(text string, secured bool) bool {
	return strings.Contains(text, "tls: ") || strings.Contains(text, "server preface") ||
		secured && (strings.Contains(text, "broken pipe") || strings.Contains(text, "reset by peer") ||
			strings.Contains(text, "EOF"))
}
