package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/usage"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// fleetSource returns the metrics of n workers with a service each. Every endpoint has had calls if called is set.
func fleetSource(n int, called bool) MetricsSource {
	workers := make([]worker.Info, 0, n)
	byWorker := make(map[string]usage.Usage, n)
	service := services.ServiceInfo{Name: "proto.MyBusinessService"}
	for i := range n {
		id := fmt.Sprintf("worker-%d", i)
		workers = append(workers, worker.Info{
			Worker: records.Worker{ID: id, Unit: "worker", Status: records.StatusRunning}, Ready: true,
			Checks: []worker.CheckInfo{{
				Use: "health", Probe: "ping", Passed: true,
				At: time.Unix(1764562537, 123e6), Due: time.Unix(1764562542, 123e6),
			}},
		})
		byWorker[id] = usage.Usage{Resources: process.Resources{
			Processes: 1, Threads: 5, Resident: 12 << 20, CPU: 1234 * time.Millisecond, Files: 12,
		}}
		e := services.EndpointInfo{Address: fmt.Sprintf("127.0.0.1:%d", 40000+i), Worker: id, Ready: true}
		if called {
			e.Calls, e.Latency.Counts[3], e.Latency.Sum = 1234, 1234, 345678*time.Microsecond
		}
		service.Endpoints = append(service.Endpoints, e)
	}
	return MetricsSource{
		Store: tallied{processed: 12}, Version: "v1",
		Workers:  func() []worker.Info { return workers },
		Usage:    func(context.Context) map[string]usage.Usage { return byWorker },
		Services: func() []services.ServiceInfo { return []services.ServiceInfo{service} },
		Gateway:  func() GatewayFigures { return GatewayFigures{} },
	}
}

// Prometheus's own parser, encoder and linter agree with a text of several pieces.
func TestMetricsOfAFleet(t *testing.T) {
	lint(t, fleetSource(100, true))
	lint(t, fleetSource(100, false))
}

// Clients on other hosts get compressed text if they take it. It is the same text.
func TestMetricsAreCompressedForOtherHosts(t *testing.T) {
	handler := MetricsHandler(fleetSource(100, true))
	ask := func(remote, accepted string) (coding string, body []byte) {
		t.Helper()
		req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		req.RemoteAddr = remote
		if accepted != "" {
			req.Header.Set("Accept-Encoding", accepted)
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, req)
		if got := recorder.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
		return recorder.Header().Get("Content-Encoding"), recorder.Body.Bytes()
	}
	_, plain := ask("127.0.0.1:1", "")
	for _, test := range []struct {
		remote, accepted string
		want             bool
	}{
		{"127.0.0.1:1", "gzip", false},
		{"[::1]:1", "gzip", false},
		{"[::ffff:127.0.0.1]:1", "gzip", false},
		{"pipe", "gzip", false},
		{"192.0.2.1:1", "", false},
		{"192.0.2.1:1", "gzip", true},
		{"[2001:db8::1]:1", "zstd, GZIP ; q=0.5", true},
		{"192.0.2.1:1", "gzip;q=0", false},
		{"192.0.2.1:1", "gzip;q=0.000, deflate", false},
		{"192.0.2.1:1", "gzip;q=many", false},
		{"192.0.2.1:1", "zstd, identity", false},
	} {
		coding, body := ask(test.remote, test.accepted)
		if (coding == "gzip") != test.want {
			t.Errorf("Accept-Encoding %q of %s: coding %q", test.accepted, test.remote, coding)
		}
		if coding == "gzip" {
			reader, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(reader); err != nil {
				t.Error(err)
			}
		}
		if !bytes.Equal(body, plain) {
			t.Errorf("Accept-Encoding %q of %s: another text of %d bytes", test.accepted, test.remote, len(body))
		}
	}
}

// BenchmarkMetrics measures a scrape of 300 workers over a connection, without the readings of the supervisor.
func BenchmarkMetrics(b *testing.B) {
	for _, called := range []bool{false, true} {
		b.Run(fmt.Sprintf("called=%t", called), func(b *testing.B) {
			server := httptest.NewServer(MetricsHandler(fleetSource(300, called)))
			defer server.Close()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := server.Client().Get(server.URL + "/metrics")
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
				b.SetBytes(n)
			}
		})
	}
}
