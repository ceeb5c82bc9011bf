package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Limits on the resources that metrics clients can use. A response is held in memory until the client has read
// all of it. It has a line for each service, endpoint and status.
const (
	metricsAnswers = 4                // responses at a time; further requests are refused with 503
	metricsConns   = 32               // connections at a time; further ones wait until one closes
	metricsGather  = 10 * time.Second // limit for collecting the metrics
	metricsIdle    = 30 * time.Second // limit between two requests on a connection
)

// MetricsServer serves metrics at /metrics. Only Source must be set.
type MetricsServer struct {
	Source MetricsSource
	Log    *slog.Logger // nil discards
	// Within bounds a response, from the request to its last byte. The default is 15 s.
	Within time.Duration
}

// Serve serves metrics until ctx is done, and then returns nil. It closes the listener.
func (s MetricsServer) Serve(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, MetricsHandler(s.Source))
}

func (s MetricsServer) serve(ctx context.Context, l net.Listener, answer http.Handler) error {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Within == 0 {
		s.Within = metricsGather + 5*time.Second
	}
	server := &http.Server{
		Handler:           atMost(metricsAnswers, answer),
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: s.Within, IdleTimeout: metricsIdle, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(netutil.LimitListener(l, metricsConns)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// atMost returns a handler that refuses requests while n are in progress. A request is in progress until its
// client has read the response.
func atMost(n int, handler http.Handler) http.Handler {
	places := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			handler.ServeHTTP(w, r)
		default:
			http.Error(w, "as many answers as allowed are being read: try again", http.StatusServiceUnavailable)
		}
	})
}
