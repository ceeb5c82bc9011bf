package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/dial"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// Prober asks the question of one check. Its methods may be called from any goroutine.
type Prober interface {
	// Ping returns nil if the endpoint is healthy. It returns when ctx ends, or soon after.
	Ping(ctx context.Context) error
	// String returns the kind and the target that commands and JSON show: "ping", "http http://127.0.0.1:8080/health".
	String() string
	// Describe returns the question for sentences: "Ping", "GET http://127.0.0.1:8080/health".
	Describe() string
}

// Pinger asks in one way at a time.
type Pinger interface {
	Ping(ctx context.Context) error
	// Method returns the way in use.
	Method() Method
}

// Target is the worker that a check is about.
type Target struct {
	// Address is that of the worker's port, for checks that use it.
	Address string
	// Auto asks by the first method that the worker implements, Conn is the connection for the others. They are only
	// used by checks for which [Spec.UsesConnection] reports true.
	Auto Pinger
	Conn grpc.ClientConnInterface
	// Process asks whether the process runs.
	Process Pinger
	// Notified asks whether the notifications of the worker pass a check of TypeNotify.
	Notified func(ctx context.Context) error
	// Run runs a command in the environment of the worker.
	Run func(ctx context.Context, command []string) (oneshot.Ran, error)
}

// New returns the prober of an expanded check.
func New(s Spec, t Target) Prober {
	switch s.Type {
	case TypeProcess:
		return byMethod{t.Process}
	case TypePing:
		core := control.NewGRPCClientGateway(t.Conn, CoreLogger(slog.New(slog.DiscardHandler)))
		return question{Ping.String(), Ping.Describe(), core.Ping}
	case TypeGRPC:
		return newGRPC(s, t)
	case TypeHTTP:
		return newHTTP(s)
	case TypeTCP:
		return newTCP(s, t)
	case TypeExec:
		return newExec(s, t.Run)
	case TypeNotify:
		return question{string(TypeNotify), "its notifications", t.Notified}
	default:
		return byMethod{t.Auto}
	}
}

// Unusable returns the prober of a check that cannot be made. Its answer is err.
func Unusable(s Spec, err error) Prober {
	return question{string(s.Type), string(s.Type), func(context.Context) error { return err }}
}

// byMethod is a prober that may change its method.
type byMethod struct{ Pinger }

func (p byMethod) String() string   { return p.Method().String() }
func (p byMethod) Describe() string { return p.Method().Describe() }

// question is a prober that always asks the same.
type question struct {
	name, sentence string
	ask            func(ctx context.Context) error
}

func (q question) Ping(ctx context.Context) error { return q.ask(ctx) }
func (q question) String() string                 { return q.name }
func (q question) Describe() string               { return q.sentence }

func newTCP(s Spec, t Target) Prober {
	address, name := t.Address, TCP.String()
	if s.Address != "" {
		address, name = s.Address, name+" "+s.Address
	}
	return question{name, "connect " + address, func(ctx context.Context) error { return connect(ctx, address) }}
}

// newGRPC returns a prober by the health service. It connects to an address other than the worker's port anew for each
// check, so that an idle check holds no connection.
func newGRPC(s Spec, t Target) Prober {
	about := strings.TrimRight(" "+s.Service, " ")
	if s.Address == "" {
		return question{GRPC.String() + about, GRPC.Describe() + about, func(ctx context.Context) error {
			return checkHealth(ctx, t.Conn, s.Service)
		}}
	}
	about += " at " + s.Address
	return question{GRPC.String() + about, GRPC.Describe() + about, func(ctx context.Context) error {
		return checkHealthAt(ctx, s.Address, s.Service)
	}}
}

func checkHealthAt(ctx context.Context, address, service string) error {
	var dialer net.Dialer
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		rpc.Interceptor(), dial.Retry(time.Second, time.Minute), // the check's own timeout ends earlier
		// Proxies of the environment are not used.
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return fmt.Errorf("make a connection to %s: %w", address, err)
	}
	return errors.Join(checkHealth(ctx, conn, service), conn.Close())
}

// maxAnswer limits the shown length of an answer, which may come from the endpoint.
const maxAnswer = 200

// notHTTP2 is the error of a gRPC client if the first bytes of a server are no frame, such as "HTTP/1.1 400".
const notHTTP2 = "http2: frame too large"

// dialing precedes the error of a failed connect in the message of a gRPC status.
const dialing = "transport: Error while dialing: "

// Brief shortens an answer to its distinctive part: the reason of a failed connect, or the code and the text of a gRPC
// status.
func Brief(err error) string {
	text := err.Error()
	var errno syscall.Errno
	var timeout net.Error
	var withStatus interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &errno):
		text = errno.Error()
	case errors.As(err, &withStatus):
		s := withStatus.GRPCStatus()
		text = fmt.Sprintf("%s: %s", s.Code(), s.Message())
		if _, cause, found := strings.Cut(s.Message(), dialing); found {
			text = strings.Trim(cause[strings.LastIndex(cause, ":")+1:], ` "`)
		}
		if strings.Contains(s.Message(), notHTTP2) {
			text = "its port does not speak gRPC: give the unit another kind or health.type"
		}
	case errors.As(err, &timeout) && timeout.Timeout(): // also context.DeadlineExceeded
		text = errNoAnswer.Error()
	}
	return strings.ToValidUTF8(text[:min(len(text), maxAnswer)], "\uFFFD")
}

// ErrUndecided is the answer of a check that is neither passed nor missed: it is too early to tell.
var ErrUndecided = errors.New("not known yet")

// errNoAnswer is the answer of an endpoint that gave none.
var errNoAnswer = errors.New("no answer in time")
