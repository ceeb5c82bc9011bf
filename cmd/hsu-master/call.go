package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
)

func callFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "addr", EnvVars: []string{"HSU_MASTER_ADDR"}, Usage: "`HOST:PORT` of the master (default: that of the running master; where no folder is named and none runs, 127.0.0.1:50051)"},
		&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: "how long to wait for the answer"},
	}, credentialFlags()...)
}

func callCommand() *cli.Command {
	return group("call", "send a request to the master, as a client would",
		leaf("process-data", "have one item processed", processData, append(callFlags(), jsonOutput(),
			&cli.StringFlag{Name: "data", Usage: "the `TEXT` to process; - reads it from standard input"},
			&cli.IntFlag{Name: "priority", Usage: "its `PRIORITY`"},
			&cli.StringFlag{Name: "request-id", Usage: "have it counted once, however often it is sent with this `ID`, and answered alike"})...),
		leaf("get-status", "ask what the master does and what it has counted", getStatus, append(callFlags(), jsonOutput())...))
}

func pingCommand() *cli.Command {
	return leaf("ping", "see that the master answers (exit 3 where none does)", func(c *cli.Context) error {
		return call(c, func(ctx context.Context, conn *grpc.ClientConn, _ grpc.CallOption) error {
			asked := time.Now()
			if err := control.NewGRPCClientGateway(conn, supervisor.CoreLogger(discard)).Ping(ctx); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.App.Writer, "%s answered in %s\n", conn.Target()[len(passthrough):], time.Since(asked).Round(time.Microsecond))
			return err
		})
	}, callFlags()...)
}

func processData(c *cli.Context) error {
	priority := c.Int("priority")
	if priority != int(int32(priority)) { //nolint:gosec // that it may overflow is what is checked
		return usagef("--priority %d: want a number of 32 bits", priority)
	}
	id := c.String("request-id")
	if c.IsSet("request-id") {
		if err := store.CheckRequestID(id); err != nil {
			return usagef("--request-id: %w", err)
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
			return printJSON(c.App.Writer, struct {
				Result  string `json:"result"`
				Success bool   `json:"success"`
			}{resp.GetResult(), resp.GetSuccess()})
		}
		_, err = fmt.Fprintln(c.App.Writer, resp.GetResult())
		return err
	})
}

func getStatus(c *cli.Context) error {
	return call(c, func(ctx context.Context, conn *grpc.ClientConn, reached grpc.CallOption) error {
		resp, err := proto.NewMyBusinessServiceClient(conn).GetStatus(ctx, &proto.StatusRequest{}, reached)
		if err != nil {
			return err
		}
		if c.Bool(jsonFlag) {
			return printJSON(c.App.Writer, struct {
				Status         string `json:"status"`
				ProcessedCount int64  `json:"processed_count"`
			}{resp.GetStatus(), resp.GetProcessedCount()})
		}
		_, err = fmt.Fprintf(c.App.Writer, "%s, %d requests processed\n", resp.GetStatus(), resp.GetProcessedCount())
		return err
	})
}

// passthrough keeps gRPC from resolving the address itself: the dialer does.
const passthrough = "passthrough:///"

// call connects, makes the call and says for people what went wrong.
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
		return usagef("--timeout %s: want a time above 0 such as 10s", c.Duration("timeout"))
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return usagef("--addr %q: want HOST:PORT", address)
	}
	creds, err := credentialsOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	conn, err := grpc.NewClient(passthrough+address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		return usagef("--addr %q: %w", address, err)
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
	text := printable(plainly(answer.Message())) // a worker's, who must not drive the terminal
	switch {
	case answer.Code() == codes.Unavailable && reached.Addr == nil && notSecuredAlike(text, c.String("tls-ca") != ""):
		return hint(fmt.Errorf("%s: %s", address, text), "see --tls-ca, --tls-cert and --tls-name, and what the master was started with")
	case answer.Code() == codes.Unavailable && reached.Addr == nil:
		return hint(fmt.Errorf("%w at %s: %s", errNoMaster, address, text), `start one with "hsu-master run", or name another --addr`)
	case answer.Code() == codes.ResourceExhausted:
		return hint(fmt.Errorf("%s: %s", address, text), "send less at once")
	case answer.Code() == codes.DeadlineExceeded:
		return hint(fmt.Errorf("%s did not answer within %s", address, c.Duration("timeout")), `see "hsu-master status", or wait longer with --timeout`)
	}
	return fmt.Errorf("%s: %s: %s", address, answer.Code(), text)
}

// What gRPC puts around the reason for which there is no connection.
var (
	noConnection = regexp.MustCompile(`^connection error: desc = "(?:transport: )?(.*)"$`)
	noDial       = regexp.MustCompile(`^[Ee]rror while dialing: dial \w+:? (?:\S+:\d+: )?(?:connect: )?(.*)$`)
)

// plainly is the reason without that.
func plainly(text string) string {
	for _, around := range []*regexp.Regexp{noConnection, noDial} {
		if found := around.FindStringSubmatch(text); found != nil {
			text = found[1]
		}
	}
	return text
}

// notSecuredAlike tells that somebody listens, but that one side wants TLS and the
// other does not, or a certificate is not to the other's liking. A server that refuses
// ours may close while we still write.
func notSecuredAlike(text string, secured bool) bool {
	return strings.Contains(text, "tls: ") || strings.Contains(text, "server preface") ||
		secured && (strings.Contains(text, "broken pipe") || strings.Contains(text, "reset by peer") || strings.Contains(text, "EOF"))
}
