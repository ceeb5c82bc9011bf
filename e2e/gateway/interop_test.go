//go:build e2e && linux

package gateway

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// startProgram runs a third-party server until the test ends; it listens on port.
func startProgram(t *testing.T, port int, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s: %s", path, &out)
		}
	})
	harness.WaitFor(t, filepath.Base(path)+" listens", func() error {
		conn, err := net.Dial("tcp", harness.Loopback(port))
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// interopCases are gRPC's own test cases that need neither credentials nor a second server.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server", "custom_metadata",
	"status_code_and_message", "special_status_message", "unimplemented_method", "unimplemented_service",
	"rpc_soak", "channel_soak",
}

func TestInteropOfGRPCPassesThroughTheGateway(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t)
	startProgram(t, port, wireTool(t, "server"), "--port", fmt.Sprint(port))
	at, _ := openGateway(t, offer{"grpc.testing.TestService", harness.Loopback(port)})
	host, gateway, _ := net.SplitHostPort(at)
	client := wireTool(t, "client")
	for _, name := range interopCases {
		t.Run(name, func(t *testing.T) {
			// The limits of the soak cases are for a machine that is not loaded.
			if out, err := harness.Output(t, client,
				"--server_host", host, "--server_port", gateway, "--test_case", name,
				"--soak_per_iteration_max_acceptable_latency_ms", fmt.Sprint(harness.Patience.Milliseconds()),
				"--soak_overall_timeout_seconds", fmt.Sprint(2*harness.Patience.Seconds())); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// plainServer is a default grpc-go server, with a service that can be called, and with the master's limit of
// streams: h2spec does not test the limit if there is none.
func plainServer(t *testing.T) string {
	t.Helper()
	server := grpc.NewServer(grpc.MaxConcurrentStreams(1024))
	registerEcho(server)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	return serve(t, server)
}

// h2spec returns the cases that fail against a server, by their behaviour. specs selects the cases; without specs,
// all are run. An answer that does not arrive within this many seconds counts as missing.
func h2spec(t *testing.T, at, path string, seconds int, specs ...string) (failed map[string]string, err error) {
	host, port, _ := net.SplitHostPort(at)
	report := filepath.Join(t.TempDir(), "report.xml")
	args := append([]string{"-h", host, "-p", port, "-P", path, "-o", fmt.Sprint(seconds), "-j", report}, specs...)
	out, err := harness.Output(t, wireTool(t, "h2spec"), args...) // exits with 1 if a case fails
	text, readErr := os.ReadFile(report)
	if readErr != nil {
		return nil, fmt.Errorf("h2spec: %w, %w\n%s", err, readErr, out)
	}
	var suites struct {
		Suite []struct {
			ID    string `xml:"package,attr"`
			Cases []struct {
				Does  string  `xml:"classname,attr"`
				Error *string `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		return nil, fmt.Errorf("h2spec: %w\n%s", err, text)
	}
	failed = map[string]string{}
	tried := 0
	for _, suite := range suites.Suite {
		for i, c := range suite.Cases {
			tried++
			if c.Error != nil {
				failed[fmt.Sprintf("%s/%d", suite.ID, i+1)] = c.Does + ": " + *c.Error
			}
		}
	}
	if tried == 0 {
		return nil, fmt.Errorf("h2spec tried nothing: %w\n%s", err, out)
	}
	return failed, nil
}

func TestGatewayBreaksNoRuleOfHTTP2ThatGRPCKeeps(t *testing.T) {
	t.Parallel()
	plain := plainServer(t)
	gateway, _ := openGateway(t, offer{echoService, plain})
	for name, path := range map[string]string{"a path of nobody": "/", "a path that is forwarded": echoMethod} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wireTool(t, "h2spec")
			var known, failed map[string]string
			var errs [2]error
			var both sync.WaitGroup
			both.Go(func() { known, errs[0] = h2spec(t, plain, path, 1) })
			both.Go(func() { failed, errs[1] = h2spec(t, gateway, path, 1) })
			both.Wait()
			if err := errors.Join(errs[:]...); err != nil {
				t.Fatal(err)
			}
			t.Logf("h2spec: %d failures, of grpc-go's own server %d", len(failed), len(known))
			for spec := range failed {
				if _, fails := known[spec]; fails {
					continue
				}
				// On a loaded machine an answer may take longer than a second.
				again, err := h2spec(t, gateway, path, 15, spec)
				if err != nil {
					t.Fatal(err)
				}
				if why, fails := again[spec]; fails {
					t.Errorf("h2spec finds %s of the gateway and not of grpc-go: %s", spec, why)
				}
			}
		})
	}
}

func TestLoadFromH2loadIsAnsweredInFull(t *testing.T) {
	t.Parallel()
	harness.NeedDebian(t, "nghttp2-client", "h2load", "--version")
	at, _ := openGateway(t, offer{echoService, plainServer(t)})
	message := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(message, []byte("\x00\x00\x00\x00\x07\x0a\x05hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Output(t, "h2load", "-n", "20000", "-c", "20", "-m", "10", "-d", message,
		"-H", "content-type: application/grpc", "-H", "te: trailers", "http://"+at+echoMethod)
	if err != nil {
		t.Fatalf("h2load: %v\n%s", err, out)
	}
	for _, want := range []string{
		"requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout",
		"status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("h2load did not say %q:\n%s", want, out)
		}
	}
	// Each answer has 12 bytes, so the total shows that all calls were answered and none was refused in its
	// trailers.
	if !regexp.MustCompile(`\(240000\) data`).MatchString(out) {
		t.Errorf("h2load did not get 240000 bytes of data:\n%s", out)
	}
}

func TestGrpcurlListsDescribesAndCallsThroughTheGateway(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("told", "told") // no flag names the service: reflection does
	m := h.Start()
	defer m.Stop()
	awaitService(h, echoService, 2)
	grpcurl := func(args ...string) string {
		t.Helper()
		out, err := harness.Output(t, wireTool(t, "grpcurl"), append([]string{"-plaintext"}, args...)...)
		if err != nil {
			t.Errorf("grpcurl %q: %v\n%s", args, err, out)
		}
		return out
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{
			[]string{h.Address(), "list"},
			[]string{echoService, "proto.MyBusinessService", "grpc.health.v1.Health"},
		},
		{
			[]string{h.Address(), "list", echoService},
			[]string{echoService + ".Echo"},
		},
		{
			[]string{h.Address(), "describe", echoService},
			[]string{"rpc Echo ( .proto.EchoRequest ) returns ( .proto.EchoResponse )"},
		},
		{
			[]string{h.Address(), "describe", "proto.EchoRequest"},
			[]string{"string message = 1;"},
		},
		{
			[]string{"-d", `{"message": "by reflection"}`, h.Address(), echoService + "/Echo"},
			[]string{`"message": "by reflection"`},
		},
		{
			[]string{"-d", `{"data": "x"}`, h.Address(), "proto.MyBusinessService/ProcessData"},
			[]string{`"result": "Processed: x"`},
		},
	} {
		out := grpcurl(test.args...)
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("grpcurl %q did not say %q:\n%s", test.args, want, out)
			}
		}
	}
}

// A unit and a client in Python, neither of which was made for hsu-master.
func TestPythonUnitServesPythonClientThroughTheGateway(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3" // Debian's, whatever else is installed
	harness.NeedDebian(t, "python3-grpcio", python, "-c", "import grpc")
	folder, err := filepath.Abs("testdata/python_unit")
	if err != nil {
		t.Fatal(err)
	}
	h := harness.NewHost(t)
	h.Flags = append(harness.WorkersOf(python, 2, filepath.Join(folder, "unit.py")), "--worker-service", echoService)
	m := h.Start()
	awaitService(h, echoService, 2)
	client := func() {
		t.Helper()
		if out, err := harness.Output(t, python, filepath.Join(folder, "client.py"), h.Address()); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	client()
	before := h.AwaitRunning(2).Instances()
	m.Kill()
	m = h.Start()
	client()
	h.AwaitRunning(2).WantInstances(t, before)
	// A client in Go calls it too.
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := echo.Call(ctx, h.Dial(), "from Go"); err != nil {
		t.Error(err)
	}
	m.Stop()
	h.WantNothingLeft()
}
