package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// Health is how a worker is checked.
type Health struct {
	Type      HealthType
	Interval  time.Duration
	Timeout   time.Duration
	Failures  int           // in a row, after which a worker is not healthy
	Successes int           // in a row, after which it is healthy again
	BusyLimit time.Duration // how long a worker that uses the processor may fail checks before it is ended

	Service string            // of type grpc
	Address string            // of types grpc and tcp; "" means the port of the worker
	URL     string            // of type http
	Status  []int             // of type http
	Headers map[string]string // of type http
	Command []string          // of type exec
}

// HealthType is a kind of check.
type HealthType string

// The values of HealthType.
const (
	HealthAuto    HealthType = "auto" // ping, else grpc, else tcp
	HealthPing    HealthType = "ping" // /proto.CoreService/Ping
	HealthGRPC    HealthType = "grpc" // grpc.health.v1
	HealthHTTP    HealthType = "http"
	HealthTCP     HealthType = "tcp"
	HealthExec    HealthType = "exec"
	HealthNotify  HealthType = "notify" // READY=1 and WATCHDOG=1 from the worker
	HealthProcess HealthType = "process"
)

// healthFields are the keys that only some types of checks have.
var healthFields = map[string][]HealthType{
	"service": {HealthGRPC},
	"address": {HealthGRPC, HealthTCP},
	"url":     {HealthHTTP},
	"status":  {HealthHTTP},
	"headers": {HealthHTTP},
	"command": {HealthExec},
}

func (h *Health) keys() []key {
	types := oneOf(&h.Type, HealthAuto, HealthPing, HealthGRPC, HealthHTTP, HealthTCP, HealthExec, HealthNotify,
		HealthProcess)
	return []key{
		{
			name: "type", value: types, def: "auto", others: "process",
			doc: "`auto` is ping, else grpc, else tcp; `notify` expects READY=1 and WATCHDOG=1; " +
				"`process` checks that it lives",
		},
		{name: "interval", value: duration(&h.Interval, 10*time.Millisecond), def: "5s", doc: "time between checks"},
		{name: "timeout", value: duration(&h.Timeout, time.Millisecond), def: "2s", doc: "time for an answer"},
		{
			name: "failures", value: number(&h.Failures, 1, 1_000), def: "3",
			doc: "failed checks in a row after which a worker is unhealthy",
		},
		{
			name: "successes", value: number(&h.Successes, 1, 1_000), def: "1",
			doc: "passed checks in a row after which it is healthy again",
		},
		{
			name: "busy_limit", value: duration(&h.BusyLimit, 0), def: "5m",
			doc: "time that a worker may use the processor without passing a check before it is ended",
		},
		{
			name: "service", value: serviceName(&h.Service),
			doc: "service that `grpc` asks for; the default is the whole server",
		},
		{
			name: "address", value: hostPort(&h.Address),
			doc: "HOST:PORT that `grpc` and `tcp` connect to; the default is the port of the worker",
		},
		{name: "url", value: httpURL(&h.URL), doc: "URL that `http` gets; it can contain `{port}`"},
		{
			name: "status", value: listOf(&h.Status, httpStatus),
			doc: "status codes that pass; the default is 200 to 399",
		},
		{name: "headers", value: textMap(&h.Headers, header, checkHeader), doc: "headers of the request"},
		{name: "command", value: command(&h.Command), doc: "command that `exec` runs; exit code 0 passes"},
	}
}

func httpStatus(at *int) value { return number(at, 100, 599) }

// hostPort is an address to connect to. The port can be {port}.
func hostPort(at *string) value {
	const name = "HOST:PORT such as 127.0.0.1:5432"
	in := form{name: name, json: "string"}
	return scalar[string]{at: at, in: in, use: target, parse: func(s string) (string, error) {
		example, err := placeholder.Expand(s, placeholder.Known)
		if err != nil {
			return "", err
		}
		host, port, found := cutLast(example, ":")
		n, err := strconv.ParseUint(port, 10, 16)
		if !found || err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /") {
			return "", errors.New("must be " + name)
		}
		return s, nil
	}}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// httpURL is a URL to get. Its port can be {port}.
func httpURL(at *string) value {
	const name = "a URL such as http://127.0.0.1:{port}/health"
	in := form{name: name, json: "string"}
	return scalar[string]{at: at, in: in, use: target, parse: func(s string) (string, error) {
		example, err := placeholder.Expand(s, placeholder.Known)
		if err != nil {
			return "", err
		}
		u, err := url.Parse(example)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", errors.New("must be " + name)
		}
		return s, nil
	}}
}

// checkHeader returns an error for a name that no header can have.
func checkHeader(name string) error {
	if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return errors.New("is not the name of a header")
	}
	return nil
}
