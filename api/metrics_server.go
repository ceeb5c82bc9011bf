package api

import (
	"compress/gzip"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/core-tools/hsu-master/internal/exposition"
)

// Limits on the resources that metrics clients can use. The values of a response, and a piece of its text, are held in
// memory until the client has read all of it. It has lines for each worker, service, endpoint and status.
const (
	metricsAnswers = 4                // responses at a time; further requests are refused with 503
	metricsConns   = 32               // connections at a time; further ones wait until one closes
	metricsGather  = 10 * time.Second // limit for collecting the metrics
	metricsIdle    = 30 * time.Second // limit between two requests on a connection
)

// MetricsHandler serves the metrics of a master at /metrics in the Prometheus format.
func MetricsHandler(source MetricsSource) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), metricsGather)
		values := source.read(ctx)
		cancel()
		w.Header().Set("Content-Type", exposition.ContentType)
		if !wantsGzip(r) {
			_ = values.writeTo(w) // it fails only if the client does not read
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		compressed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // a valid level
		_ = errors.Join(values.writeTo(compressed), compressed.Close())
	})
	return mux
}

// wantsGzip reports whether the client accepts compressed text and is on another host. On this one there is no network
// to save, and compressing takes longer than all the rest.
func wantsGzip(r *http.Request) bool {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || from.Addr().Unmap().IsLoopback() {
		return false
	}
	for coding := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			text, weighted := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			q, err := strconv.ParseFloat(text, 64)
			return !weighted || err == nil && q > 0
		}
	}
	return false
}

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
