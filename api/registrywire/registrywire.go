// Package registrywire serves the module registry: the wire of HSU's registry, HTTP/1.1 with JSON, on a unix socket.
// Processes of workers publish their modules there, and HSU clients ask where the APIs of a module are served.
//
//	POST   /api/v1/publish               {"moduleID", "processID", "apis": [{"serviceIDs", "serverPort", "protocol"}]}
//	GET    /api/v1/discover/{moduleID}   {"moduleID", "apis"}
//	DELETE /api/v1/unpublish/{moduleID}?processID=
//	GET    /api/v1/health
//
// The kernel tells which process has connected, and only a process of a worker can publish. The answer to a client has
// the port of the gateway for gRPC APIs of workers that get calls, and the published port for other APIs.
//
// Every user of the host may connect, so each request is bounded in size and time, and the users share the connections.
package registrywire

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Limits of a request. Clients wait for 5 s.
const (
	maxBody       = 64 << 10
	maxHeader     = 16 << 10
	headerTimeout = 3 * time.Second
	readTimeout   = 5 * time.Second
	within        = 4 * time.Second // for the answer
	writeTimeout  = 10 * time.Second
	idleTimeout   = 30 * time.Second
)

// Modules are the published modules: see [supervisor.Modules].
type Modules interface {
	List() []supervisor.Module
	Publish(ctx context.Context, by *process.Connector, a records.Announcement) error
	Unpublish(ctx context.Context, by *process.Connector, module string, pid int) error
}

// Server serves the module registry. Modules and Port must be set.
type Server struct {
	Modules Modules
	Port    int              // of the gateway; 0 if clients cannot use it
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil means [time.Now]

	started time.Time
	once    sync.Once
	http    *http.Server
	heard   heard
	refused refused
}

// Serve serves until ctx is done, and then returns nil. It closes the listener. It may be called again meanwhile, with
// the same ctx, for a socket that was made again.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.once.Do(s.open)
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(bounded(l, s.Log)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// open sets the defaults and makes the server of all listeners.
func (s *Server) open() {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	s.started = s.Now()
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if placed, ok := c.(*fair.Conn); ok {
				if accepted, ok := placed.NetConn().(conn); ok {
					ctx = context.WithValue(ctx, connectorKey{}, accepted.connector)
				}
			}
			return ctx
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

type connectorKey struct{}

// connectorOf returns the process that made the connection of a request.
func connectorOf(r *http.Request) *process.Connector {
	c, _ := r.Context().Value(connectorKey{}).(*process.Connector)
	return c
}

// silence is the time after which a module is unknown if its process has ended and nothing was heard of it: neither a
// publication nor a request of a client.
const silence = 5 * time.Minute

// heard has the times at which modules were heard of.
type heard struct {
	mu sync.Mutex
	at map[heardKey]time.Time
}

type heardKey struct{ worker, module string }

// note notes that a module was heard of, and forgets the modules that are not in all any more.
func (h *heard) note(all []supervisor.Module, now time.Time, modules ...supervisor.Module) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[heardKey]time.Time{}
	}
	for _, m := range modules {
		h.at[heardKey{m.Worker, m.Module}] = now
	}
	if len(h.at) <= len(all) {
		return
	}
	kept := make(map[heardKey]time.Time, len(all))
	for _, m := range all {
		key := heardKey{m.Worker, m.Module}
		if at, known := h.at[key]; known {
			kept[key] = at
		}
	}
	h.at = kept
}

// lately reports whether a module was heard of within the silence.
func (h *heard) lately(m supervisor.Module, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, known := h.at[heardKey{m.Worker, m.Module}]
	return known && now.Sub(at) < silence
}

// maxRefusedUsers bounds the users whose refusals are counted apart.
const maxRefusedUsers = 256

// refused counts refused publications by user, so that each user is logged once.
type refused struct {
	mu    sync.Mutex
	users map[uint32]int
}

// note counts a refusal and reports whether it is the first one of the user.
func (r *refused) note(user uint32) (first bool, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == nil {
		r.users = map[uint32]int{}
	}
	if _, known := r.users[user]; !known && len(r.users) >= maxRefusedUsers {
		return false, 0
	}
	r.users[user]++
	return r.users[user] == 1, r.users[user]
}
