package registrywire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m, os.Stderr)) }

const gatewayPort = 50051

// fakeModules accepts what this process publishes, unless err is set.
type fakeModules struct {
	mu     sync.Mutex
	list   []supervisor.Module
	err    error
	routed bool
	blocks bool // Publish returns when its context ends
}

func (f *fakeModules) List() []supervisor.Module {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}

func (f *fakeModules) Publish(ctx context.Context, by *process.Connector, a records.Announcement) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocks {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.err != nil {
		return f.err
	}
	if by.PID != os.Getpid() {
		return supervisor.ErrNotOfWorker
	}
	id, err := process.Identify(a.PID)
	a.Inode, a.StartTicks = id.Inode, id.StartTicks
	f.list = append(f.list, supervisor.Module{Announcement: a, Worker: "w-0", Routed: f.routed})
	return err
}

func (f *fakeModules) Unpublish(_ context.Context, _ *process.Connector, module string, pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(m supervisor.Module) bool { return m.Module == module && m.PID == pid })
	return f.err
}

func (f *fakeModules) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// served is a server on a socket.
type served struct {
	t      *testing.T
	path   string
	client *http.Client
	mu     sync.Mutex
	now    time.Time
}

func serve(t *testing.T, modules Modules, log *slog.Logger) *served {
	t.Helper()
	s := &served{t: t, path: filepath.Join(t.TempDir(), "s"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Modules: modules, Port: gatewayPort, Log: log, Now: func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.now
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path)
	}}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func (s *served) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// ask returns the status code and the answer, which must be JSON.
func (s *served) ask(method, path, body string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || !json.Valid(text) || answer.Header.Get("Content-Type") != "application/json" {
		s.t.Errorf("%s %s: %q of type %q, %v", method, path, text, answer.Header.Get("Content-Type"), err)
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}

func (s *served) want(method, path, body string, code int, part string) {
	s.t.Helper()
	got, text := s.ask(method, path, body)
	if got != code || !strings.Contains(text, part) {
		s.t.Errorf("%s %s %.100q: %d %s, want %d %s", method, path, body, got, text, code, part)
	}
}

func published(apis string) string {
	return fmt.Sprintf(`{"ModuleID":"m","ProcessID":%d,"APIs":[%s]}`, os.Getpid(), apis)
}

// The bytes on the wire, with the keys as HSU's client in Go writes them.
func TestWire(t *testing.T) {
	s := serve(t, &fakeModules{routed: true}, nil)
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for _, step := range []struct{ method, path, body, want string }{
		{
			"POST", "/api/v1/publish", published(
				`{"ServiceIDs":["a","b"],"ServerPort":4711,"Protocol":"grpc","Address":"x:1","Metadata":{"k":"v"}}`),
			`{"success":true}`,
		},
		{
			"GET", "/api/v1/discover/m", "", `{"moduleID":"m","apis":[{"serviceIDs":["a","b"],"serverPort":50051,` +
				`"protocol":"grpc","metadata":{"k":"v"}}]}`,
		},
		{"GET", "/api/v1/health", "", `{"status":"healthy","registeredModules":1,"totalAPIs":1,"uptime":"0s"}`},
		{"DELETE", fmt.Sprintf("/api/v1/unpublish/m?processID=%d", os.Getpid()), "", `{"success":true}`},
		{
			"GET", "/api/v1/discover/m", "", `{"success":false,"error":"` + errUnknown.Error() +
				`","context":"discover m"}`,
		},
	} {
		if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+
			"Content-Length: %d\r\n\r\n%s", step.method, step.path, len(step.body), step.body); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if diff := cmp.Diff(step.want+"\n", string(text)); diff != "" || err != nil {
			t.Errorf("%s %s: %v\n%s", step.method, step.path, err, diff)
		}
	}
}

func TestFaultsOfRequests(t *testing.T) {
	s := serve(t, &fakeModules{}, nil)
	const publish = "/api/v1/publish"
	long := strings.Repeat("x", maxID+1)
	ids := strings.TrimSuffix(strings.Repeat(`"a",`, maxServices+1), ",")
	apis := strings.TrimSuffix(strings.Repeat(`{},`, maxAPIs+1), ",")
	for _, c := range []struct {
		method, path, body string
		code               int
		part               string
	}{
		{"POST", publish, "", 400, "no publication"},
		{"POST", publish, "[]", 400, "no publication"},
		{"POST", publish, published("") + "x", 400, "no publication"},
		{"POST", publish, strings.Repeat(" ", maxBody+1), 413, "65536 bytes"},
		{"POST", publish, strings.Repeat("[", maxBody), 400, "no publication"},
		{"POST", publish, `{"processID":1}`, 400, "moduleID"},
		{"POST", publish, `{"moduleID":"` + long + `","processID":1}`, 400, "1 to 128 bytes"},
		{"POST", publish, `{"moduleID":"a b","processID":1}`, 400, "printable ASCII"},
		{"POST", publish, `{"moduleID":"a\u0000","processID":1}`, 400, "printable ASCII"},
		{"POST", publish, `{"moduleID":"m"}`, 400, "processID 0"},
		{"POST", publish, `{"moduleID":"m","processID":4294967296}`, 400, "processID"},
		{"POST", publish, published(apis), 400, "apis: 33"},
		{"POST", publish, published(`{"serverPort":65536}`), 400, "apis[0]: serverPort 65536"},
		{"POST", publish, published(`{"serverPort":-1}`), 400, "serverPort -1"},
		{"POST", publish, published(`{"serviceIDs":[` + ids + `]}`), 400, "serviceIDs: 65"},
		{"POST", publish, published(`{"serviceIDs":[""]}`), 400, "serviceIDs: "},
		{"POST", publish, published(`{"protocol":"` + long + `"}`), 400, "protocol"},
		{"POST", publish, published(`{"metadata":"` + strings.Repeat("x", maxMetadata) + `"}`), 400, "metadata: "},
		{"GET", publish, "", 405, "POST"},
		{"PUT", "/api/v1/discover/m", "", 405, "GET"},
		{"GET", "/api/v1/unpublish/m", "", 405, "DELETE"},
		{"DELETE", "/api/v1/unpublish/m", "", 400, "processID is required"},
		{"DELETE", "/api/v1/unpublish/m?processID=0", "", 400, "processID is required"},
		{"DELETE", "/api/v1/unpublish/?processID=1", "", 400, "moduleID"},
		{"GET", "/api/v1/discover/", "", 400, "moduleID"},
		{"GET", "/api/v1/discover/a%0ab", "", 400, "moduleID"},
		{"GET", "/api/v1/discover/unknown", "", 404, "no living process"},
		{"GET", "/api/v1/list", "", 404, "there is no path"},
		{"GET", "/", "", 404, "there is no path"},
	} {
		s.want(c.method, c.path, c.body, c.code, `"success":false`)
		s.want(c.method, c.path, c.body, c.code, c.part)
	}
}

func TestErrorsOfModules(t *testing.T) {
	modules := &fakeModules{}
	s := serve(t, modules, nil)
	for err, codes := range map[error][2]int{
		supervisor.ErrNotOfWorker:  {403, 403},
		supervisor.ErrForeignPort:  {403, 403},
		process.ErrGone:            {403, 403},
		supervisor.ErrOtherProcess: {400, 400},
		worker.ErrTooMany:          {429, 429},
		worker.ErrNotRecorded:      {503, 503},
		context.DeadlineExceeded:   {503, 503},
	} {
		modules.set(func() { modules.err = fmt.Errorf("wrapped: %w", err) })
		s.want("POST", "/api/v1/publish", published(`{"serverPort":1}`), codes[0], err.Error())
		s.want("DELETE", fmt.Sprintf("/api/v1/unpublish/m?processID=%d", os.Getpid()), "", codes[1], err.Error())
	}
}

// A client that is no worker publishes itself without APIs, which changes nothing.
func TestClientsPublishThemselves(t *testing.T) {
	modules := &fakeModules{err: supervisor.ErrNotOfWorker}
	s := serve(t, modules, nil)
	s.want("POST", "/api/v1/publish", published(""), 200, `{"success":true}`)
	s.want("POST", "/api/v1/publish", fmt.Sprintf(`{"moduleID":"m","processID":%d}`, os.Getpid()), 200, "true")
	s.want("POST", "/api/v1/publish", fmt.Sprintf(`{"moduleID":"m","processID":%d}`, os.Getppid()), 403, "false")
	s.want("POST", "/api/v1/publish", published("{}"), 403, "false")
	s.want("GET", "/api/v1/discover/m", "", 404, "false")
}

// The gateway serves the gRPC APIs of workers that get calls. Other APIs are where they were published.
func TestWhereAPIsAreFound(t *testing.T) {
	grpc := func(port int, ids ...string) records.AnnouncedAPI {
		return records.AnnouncedAPI{ServiceIDs: ids, Port: port, Protocol: "gRPC"}
	}
	module := func(routed bool, apis ...records.AnnouncedAPI) supervisor.Module {
		return supervisor.Module{Announcement: records.Announcement{Module: "m", APIs: apis}, Routed: routed}
	}
	for name, c := range map[string]struct {
		modules []supervisor.Module
		gateway int
		want    []api
	}{
		"none": {[]supervisor.Module{module(true)}, 1, []api{}},
		"two workers": {
			[]supervisor.Module{module(true, grpc(7, "a", "b")), module(true, grpc(8, "b", "c"))},
			1,
			[]api{{ServiceIDs: []string{"a", "b", "c"}, ServerPort: 1, Protocol: "gRPC"}},
		},
		"two workers without services": {
			[]supervisor.Module{module(false, grpc(7, "a")), module(false, grpc(8, "a"))},
			1,
			[]api{
				{ServiceIDs: []string{"a"}, ServerPort: 7, Protocol: "gRPC"},
				{ServiceIDs: []string{"a"}, ServerPort: 8, Protocol: "gRPC"},
			},
		},
		"http": {
			[]supervisor.Module{module(true, records.AnnouncedAPI{Port: 9, Protocol: "http"}, grpc(7))},
			1,
			[]api{
				{ServiceIDs: []string{}, ServerPort: 9, Protocol: "http"},
				{ServiceIDs: []string{}, ServerPort: 1, Protocol: "gRPC"},
			},
		},
		"no gateway": {
			[]supervisor.Module{module(true, grpc(7))},
			0,
			[]api{{ServiceIDs: []string{}, ServerPort: 7, Protocol: "gRPC"}},
		},
	} {
		if diff := cmp.Diff(c.want, apisOf(c.modules, c.gateway), cmp.AllowUnexported()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A module whose process has ended is known for five minutes after it was heard of.
func TestSilentModules(t *testing.T) {
	ended := supervisor.Module{
		Announcement: records.Announcement{Module: "ended", PID: os.Getpid(), Inode: 1, StartTicks: 1}, Worker: "w-0",
	}
	modules := &fakeModules{list: []supervisor.Module{ended}}
	s := serve(t, modules, nil)
	s.want("GET", "/api/v1/discover/ended", "", 404, "")
	s.want("POST", "/api/v1/publish", published(""), 200, "")
	modules.set(func() { modules.list[1].StartTicks++ }) // another process
	for range 3 {
		s.pass(silence - time.Second)
		s.want("GET", "/api/v1/discover/m", "", 200, `"m"`) // each is a heartbeat
	}
	s.pass(silence)
	s.want("GET", "/api/v1/discover/m", "", 404, "")
	modules.set(func() { modules.list[1].StartTicks-- })
	s.want("GET", "/api/v1/discover/m", "", 200, `"m"`)
	s.pass(24 * time.Hour)
	s.want("GET", "/api/v1/discover/m", "", 200, `"m"`) // it lives
	modules.set(func() { modules.list = nil })
	s.want("GET", "/api/v1/discover/m", "", 404, "")
}

func TestRefusalsAreLoggedOncePerUser(t *testing.T) {
	var mu sync.Mutex
	var log strings.Builder
	modules := &fakeModules{err: supervisor.ErrNotOfWorker}
	s := serve(t, modules, slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil)))
	for range 5 {
		s.want("POST", "/api/v1/publish", published("{}"), 403, "false")
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "module publication refused"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	var r refused
	for user := range uint32(2 * maxRefusedUsers) {
		if first, _ := r.note(user); first != (user < maxRefusedUsers) {
			t.Fatalf("user %d: %t", user, first)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// One user cannot take all connections, and a connection that sends nothing is closed.
func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, &fakeModules{}, nil)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 2 * maxConns {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	// Those over the share of the user are closed at once, the others when they have sent no header in time.
	began := time.Now()
	for i, c := range slices.Backward(open) {
		if err := c.SetReadDeadline(began.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d has sent nothing: %v", i, err)
		}
		if took := time.Since(began); i == maxConns && took >= headerTimeout {
			t.Errorf("connections over the share are closed after %s", took)
		}
	}
	if took := time.Since(began); took < headerTimeout/2 {
		t.Errorf("all are closed after %s: none was served", took)
	}
	s.want("GET", "/api/v1/health", "", 200, "healthy") // their places are free again
}

// A slow body does not hold a connection.
func TestSlowBody(t *testing.T) {
	s := serve(t, &fakeModules{}, nil)
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := io.WriteString(conn,
		"POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(began.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || time.Since(began) > 3*readTimeout || !strings.Contains(string(answer), " 400 ") {
		t.Errorf("after %s: %q, %v", time.Since(began), answer, err)
	}
}

// FuzzRequests takes a request line and a body.
func FuzzRequests(f *testing.F) {
	f.Add("POST", "/api/v1/publish", published(`{"ServiceIDs":["a"],"ServerPort":1,"Protocol":"grpc"}`))
	f.Add("GET", "/api/v1/discover/%2e%2e", "")
	f.Add("DELETE", "/api/v1/unpublish/m?processID=1", "{}")
	f.Add("POST", "/api/v1/publish", `{"moduleid":"m","PROCESSID":1,"apis":[{"metadata":{"a":[1,2]}}]}`)
	f.Add("GET", "/api/v1/health", strings.Repeat("[", 1000))
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if p, err := parsePublication([]byte(body)); err == nil {
			if a := p.announcement(); checkID(a.Module) != nil || a.PID < 1 || len(a.APIs) > maxAPIs {
				t.Errorf("%q is accepted as %+v", body, a)
			}
			for _, a := range p.announcement().APIs {
				if _, err := json.Marshal(apiOf(a)); err != nil || a.Port < 0 || a.Port > 65535 {
					t.Errorf("%q: %+v, %v", body, a, err)
				}
			}
		}
		refuses := &fakeModules{err: supervisor.ErrNotOfWorker}
		s := &Server{Modules: refuses, Log: slog.New(slog.DiscardHandler), Now: time.Now}
		r, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if err != nil {
			return
		}
		recorder := &recorder{header: http.Header{}}
		s.handler().ServeHTTP(recorder, r)
		if recorder.code < 200 || recorder.code > 599 || !json.Valid([]byte(recorder.body.String())) {
			t.Errorf("%s %q: %d %q", method, path, recorder.code, recorder.body.String())
		}
	})
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	code   int
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
