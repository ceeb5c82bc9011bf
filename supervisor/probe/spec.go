package probe

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"

	"golang.org/x/net/http/httpguts"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// Type is a kind of check.
type Type string

// The values of Type.
const (
	TypeAuto    Type = "auto"    // the first of ping, grpc and tcp that the worker implements; without a port process
	TypePing    Type = "ping"    // the core service of an HSU
	TypeGRPC    Type = "grpc"    // the standard health service, grpc.health.v1
	TypeHTTP    Type = "http"    // a GET
	TypeTCP     Type = "tcp"     // a connection that is accepted
	TypeExec    Type = "exec"    // a command that exits with code 0
	TypeNotify  Type = "notify"  // the notifications of the worker, sd_notify(3)
	TypeProcess Type = "process" // the process runs
)

// Spec describes a check: the question, and how often it is asked. Address, URL, Headers and Command may contain the
// placeholders of package placeholder.
type Spec struct {
	Type Type // "" means TypeAuto
	Policy
	Service string            // of TypeGRPC; "" means the whole server
	Address string            // "host:port", of TypeGRPC and TypeTCP; "" means the port of the worker
	URL     string            // of TypeHTTP
	Status  []int             // status codes that pass a check of TypeHTTP; none means 200 to 399
	Headers map[string]string // of TypeHTTP
	Command []string          // of TypeExec: the executable, with a slash in its name, and its arguments
}

// IsZero reports whether nothing is set.
func (s Spec) IsZero() bool { return reflect.ValueOf(s).IsZero() }

// Equal reports whether the two describe the same check.
func (s Spec) Equal(other Spec) bool { return reflect.DeepEqual(s, other) }

// WithDefaults returns the check with every zero value replaced that has a default.
func (s Spec) WithDefaults() Spec {
	p := DefaultPolicy()
	s.Type = cmp.Or(s.Type, TypeAuto)
	s.Interval = cmp.Or(s.Interval, p.Interval)
	s.Timeout = cmp.Or(s.Timeout, p.Timeout)
	s.Missed = cmp.Or(s.Missed, p.Missed)
	s.Passes = cmp.Or(s.Passes, p.Passes)
	s.Lateness = cmp.Or(s.Lateness, p.Lateness)
	return s
}

// UsesPort reports whether the check passes only if the worker listens on its port.
func (s Spec) UsesPort() bool {
	switch s.Type {
	case TypeGRPC, TypeTCP:
		return s.Address == "" || placeholder.In(s.Address, placeholder.Port)
	case TypeHTTP:
		return placeholder.In(s.URL, placeholder.Port)
	case TypeExec, TypeNotify, TypeProcess:
		return false
	default:
		return true
	}
}

// UsesConnection reports whether the check uses the gRPC connection to the worker's port.
func (s Spec) UsesConnection() bool {
	switch s.Type {
	case TypeGRPC:
		return s.Address == ""
	case TypeHTTP, TypeTCP, TypeExec, TypeNotify, TypeProcess:
		return false
	default:
		return true
	}
}

// Expand returns the check of one worker: value returns the value of a placeholder.
func (s Spec) Expand(value func(name string) (string, bool)) (Spec, error) {
	var errs []error
	expand := func(field, text string) string {
		text, err := placeholder.Expand(text, value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
		return text
	}
	s.Address, s.URL = expand("address", s.Address), expand("url", s.URL)
	s.Headers, s.Command = maps.Clone(s.Headers), slices.Clone(s.Command)
	for name, content := range s.Headers {
		s.Headers[name] = expand("headers", content)
	}
	for i, arg := range s.Command {
		s.Command[i] = expand("command", arg)
	}
	return s, errors.Join(errs...)
}

// Validate reports every fault of the check, each with the name of its field. No message contains a value of the
// headers.
func (s Spec) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p := s.Policy; p.Interval < 0 || p.Timeout < 0 || p.Missed < 0 || p.Passes < 0 || p.Lateness < 0 {
		fault("%+v: must have no negative field", p)
	}
	example, err := s.Expand(placeholder.Known)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	switch s.Type {
	case "", TypeAuto, TypePing, TypeNotify, TypeProcess:
	case TypeGRPC, TypeTCP:
		if err := checkAddress(example.Address); s.Address != "" && err != nil {
			fault("address %q: %w", s.Address, err)
		}
	case TypeHTTP:
		errs = append(errs, example.validateHTTP()...)
	case TypeExec:
		if len(s.Command) == 0 || s.Command[0] == "" {
			fault("command: required for a check of type exec")
		}
	default:
		fault("type %q: must be auto, ping, grpc, http, tcp, exec, notify or process", s.Type)
	}
	return errors.Join(errs...)
}

func (s Spec) validateHTTP() []error {
	var errs []error
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		errs = append(errs, errors.New("url: must be a URL such as http://127.0.0.1:8080/health"))
	}
	for _, code := range s.Status {
		if code < 100 || code > 599 {
			errs = append(errs, fmt.Errorf("status %d: must be from 100 to 599", code))
		}
	}
	for name, content := range s.Headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(content) {
			errs = append(errs, fmt.Errorf("headers: %q is not a valid header", name))
		}
	}
	return errs
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
		return errors.New("must be HOST:PORT such as 127.0.0.1:5432")
	}
	return nil
}
