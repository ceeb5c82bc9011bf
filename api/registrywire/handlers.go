package registrywire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// The paths of the wire.
const (
	publishPath   = "/api/v1/publish"
	discoverPath  = "/api/v1/discover/"
	unpublishPath = "/api/v1/unpublish/"
	healthPath    = "/api/v1/health"
)

// failure is an error with its status code.
type failure struct {
	code    int
	context string // the request
	err     error
}

func (f failure) Error() string { return f.context + ": " + f.err.Error() }

func (s *Server) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		answer, err := s.answer(w, r.WithContext(ctx))
		code := http.StatusOK
		if err != nil {
			f, known := errors.AsType[failure](err)
			if !known {
				f = failure{http.StatusInternalServerError, r.Method, err}
			}
			code, answer = f.code, failed{Error: f.err.Error(), Context: f.context}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			s.Log.Debug("module registry answer not sent", "error", err)
		}
	})
}

// answer executes a request.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) (answer any, err error) {
	path := r.URL.EscapedPath()
	module, isDiscover := strings.CutPrefix(path, discoverPath)
	method, do := http.MethodGet, func() (any, error) { return s.discover(module) }
	switch {
	case path == publishPath:
		method, do = http.MethodPost, func() (any, error) { return s.publish(r) }
	case path == healthPath:
		do = func() (any, error) { return s.health(), nil }
	case strings.HasPrefix(path, unpublishPath):
		module = strings.TrimPrefix(path, unpublishPath)
		method, do = http.MethodDelete, func() (any, error) { return s.unpublish(r, module) }
	case !isDiscover:
		return nil, failure{http.StatusNotFound, "request", fmt.Errorf("there is no path %.100q", r.URL.Path)}
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		return nil, failure{
			http.StatusMethodNotAllowed, "request", fmt.Errorf("%.100q takes the method %s", r.URL.Path, method),
		}
	}
	return do()
}

func (s *Server) publish(r *http.Request) (any, error) {
	const what = "publish"
	body, err := io.ReadAll(r.Body)
	switch tooLarge, isTooLarge := errors.AsType[*http.MaxBytesError](err); {
	case isTooLarge:
		return nil, failure{
			http.StatusRequestEntityTooLarge, what, fmt.Errorf("the body has more than %d bytes", tooLarge.Limit),
		}
	case err != nil:
		return nil, failure{http.StatusBadRequest, what, fmt.Errorf("read the body: %w", err)}
	}
	p, err := parsePublication(body)
	if err != nil {
		return nil, failure{http.StatusBadRequest, what, err}
	}
	by := connectorOf(r)
	if by == nil {
		return nil, failure{http.StatusForbidden, what, errors.New("the process that connected is not known")}
	}
	err = s.Modules.Publish(r.Context(), by, p.announcement())
	switch {
	case err == nil:
		all := s.Modules.List()
		s.heard.note(all, s.Now(), slices.DeleteFunc(slices.Clone(all), func(m supervisor.Module) bool {
			return m.Module != p.ModuleID
		})...)
	case errors.Is(err, supervisor.ErrNotOfWorker) && len(p.APIs) == 0 && p.ProcessID == by.PID:
		// A client on this host publishes itself without APIs: there is nothing to know about it.
	default:
		s.refuse(by, p.ModuleID, err)
		return nil, failure{codeOf(err), what + " " + p.ModuleID, err}
	}
	return succeeded{Success: true}, nil
}

// refuse logs a refused publication, the first one of each user as a warning.
func (s *Server) refuse(by *process.Connector, module string, err error) {
	level := slog.LevelDebug
	first, count := s.refused.note(by.UID)
	if first {
		level = slog.LevelWarn
	}
	s.Log.Log(context.Background(), level, "module publication refused",
		"module", module, "pid", by.PID, "user", by.UID, "refused", count, "error", err)
}

var errUnknown = errors.New("no living process of a worker has published the module")

func (s *Server) discover(escaped string) (any, error) {
	const what = "discover"
	module, err := unescape(escaped)
	if err != nil {
		return nil, failure{http.StatusBadRequest, what, err}
	}
	all, now := s.Modules.List(), s.Now()
	known := slices.DeleteFunc(slices.Clone(all), func(m supervisor.Module) bool {
		return m.Module != module || !m.Alive() && !s.heard.lately(m, now)
	})
	if len(known) == 0 {
		return nil, failure{http.StatusNotFound, what + " " + module, errUnknown}
	}
	s.heard.note(all, now, known...)
	return discovered{ModuleID: module, APIs: apisOf(known, s.Port)}, nil
}

// apisOf returns where clients reach the APIs of a module: at the gateway if they are gRPC and calls are routed to the
// worker, else where they were published.
func apisOf(modules []supervisor.Module, gateway int) []api {
	list := []api{}
	for _, m := range modules {
		for _, a := range m.APIs {
			found := apiOf(a)
			if m.Routed && worker.IsGRPC(a) && gateway != 0 {
				found.ServerPort = gateway
			}
			at := slices.IndexFunc(list, func(other api) bool { return other.mergeable(found) })
			if at < 0 {
				list = append(list, found)
				continue
			}
			for _, id := range found.ServiceIDs {
				if !slices.Contains(list[at].ServiceIDs, id) {
					list[at].ServiceIDs = append(slices.Clone(list[at].ServiceIDs), id)
				}
			}
		}
	}
	return list
}

func (s *Server) unpublish(r *http.Request, escaped string) (any, error) {
	const what = "unpublish"
	module, err := unescape(escaped)
	if err != nil {
		return nil, failure{http.StatusBadRequest, what, err}
	}
	pid, err := strconv.ParseInt(r.URL.Query().Get("processID"), 10, 32)
	if err != nil || pid < 1 {
		return nil, failure{http.StatusBadRequest, what, errors.New("processID is required: the PID of the publisher")}
	}
	by := connectorOf(r)
	if by == nil {
		return nil, failure{http.StatusForbidden, what, errors.New("the process that connected is not known")}
	}
	if err := s.Modules.Unpublish(r.Context(), by, module, int(pid)); err != nil {
		return nil, failure{codeOf(err), what + " " + module, err}
	}
	return succeeded{Success: true}, nil
}

func (s *Server) health() any {
	h := healthy{Status: "healthy", Uptime: s.Now().Sub(s.started).Round(time.Second).String()}
	known := map[string]bool{}
	for _, m := range s.Modules.List() {
		known[m.Module] = true
		h.TotalAPIs += len(m.APIs)
	}
	h.RegisteredModules = len(known)
	return h
}

// unescape returns the module of the last part of a path.
func unescape(escaped string) (string, error) {
	module, err := url.PathUnescape(escaped)
	if err == nil {
		err = checkID(module)
	}
	if err != nil {
		return "", fmt.Errorf("moduleID: %w", err)
	}
	return module, nil
}

// codeOf returns the status code of an error of [Modules].
func codeOf(err error) int {
	switch {
	case errors.Is(err, supervisor.ErrOtherProcess):
		return http.StatusBadRequest
	case errors.Is(err, supervisor.ErrNotOfWorker), errors.Is(err, supervisor.ErrForeignPort),
		errors.Is(err, process.ErrGone):
		return http.StatusForbidden
	case errors.Is(err, worker.ErrTooMany):
		return http.StatusTooManyRequests
	}
	return http.StatusServiceUnavailable
}
