package probe

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestHTTP(t *testing.T) {
	ended := make(chan struct{})
	mux := http.NewServeMux()
	answer := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	answer("/ok", 200)
	answer("/teapot", 418)
	answer("/down", 503)
	answer("/unknown", 599)
	mux.Handle("/moved", http.RedirectHandler("/down", http.StatusFound))
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		n, err := io.CopyN(w, endless{}, 1<<30)
		if err == nil {
			t.Errorf("%d bytes of the body were read", n)
		}
		close(ended)
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.Host != "health.example" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	base := server.URL
	headers := map[string]string{"authorization": "Bearer secret", "Host": "health.example"}
	for name, test := range map[string]struct {
		spec Spec
		want string
	}{
		"ok":             {Spec{URL: base + "/ok"}, ""},
		"redirect":       {Spec{URL: base + "/moved"}, ""},
		"redirect fails": {Spec{URL: base + "/moved", Status: []int{200}}, "/moved: 302 Found"},
		"down":           {Spec{URL: base + "/down"}, "GET " + base + "/down: 503 Service Unavailable"},
		"expected":       {Spec{URL: base + "/teapot", Status: []int{200, 418}}, ""},
		"unexpected":     {Spec{URL: base + "/teapot"}, "/teapot: 418 I'm a teapot"},
		"without a text": {Spec{URL: base + "/unknown"}, "/unknown: 599"},
		"hang":           {Spec{URL: base + "/hang", Policy: Policy{Timeout: aMoment}}, "/hang: no answer in time"},
		"huge body":      {Spec{URL: base + "/huge"}, ""},
		"headers":        {Spec{URL: base + "/header", Headers: headers}, ""},
		"no headers":     {Spec{URL: base + "/header"}, "/header: 401 Unauthorized"},
		"plain as https": {Spec{URL: strings.Replace(base, "http", "https", 1)}, "HTTP response to HTTPS client"},
	} {
		test.spec.Type = TypeHTTP
		test.spec.Timeout = cmp.Or(test.spec.Timeout, time.Minute)
		if got := ask(t, test.spec, Target{}); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	<-ended
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestHTTPSWithACertificateThatNobodyKnows(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	got := ask(t, Spec{Type: TypeHTTP, URL: server.URL}, Target{})
	if !strings.Contains(got, "certificate") {
		t.Errorf("%q, want that the certificate is not trusted", got)
	}
}

// A server of another protocol must neither hold a check beyond its timeout, nor fill the memory.
func TestHTTPFromAnythingElse(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"garbage":       {func(c net.Conn) { _, _ = io.WriteString(c, "\x00\x01 garbage\r\n\r\n") }, "malformed HTTP"},
		"empty":         {func(net.Conn) {}, ""},
		"silent":        {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "no answer in time"},
		"slow headers":  {drip, "no answer in time"},
		"endless lines": {endlessHeader, "exceed"},
		"many interim": {func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
					return
				}
			}
		}, "exceed"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				// An answer before the request is another fault, and which of the two is seen is chance.
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					t.Error(err)
				}
				test.serve(conn)
			}()
			spec := Spec{Type: TypeHTTP, URL: "http://" + l.Addr().String() + "/"}
			spec.Timeout = time.Minute
			if test.want == "no answer in time" {
				spec.Timeout = aMoment
			}
			if got := ask(t, spec, Target{}); got == "" || !strings.Contains(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			<-served // the connection is closed, even if the server is still at it
		})
	}
}

// drip sends a header line every moment.
func drip(c net.Conn) {
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	for i := 0; err == nil; i++ {
		_, err = fmt.Fprintf(c, "X-%d: 1\r\n", i)
		time.Sleep(20 * time.Millisecond) // the pace of the server
	}
}

func endlessHeader(c net.Conn) {
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	for err == nil {
		_, err = io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n")
	}
}

func TestHTTPKeepsNoConnection(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	before := runtime.NumGoroutine()
	p := New(Spec{Type: TypeHTTP, URL: server.URL}, Target{})
	for range 50 {
		if err := p.Ping(t.Context()); err == nil {
			t.Fatal("404 passed")
		}
	}
	server.Close() // waits for its connections
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines after 50 checks, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestSecretsOfAURLAreNotShown(t *testing.T) {
	const secret = "hunter2"
	closed := listen(t)
	address := closed.Addr().String()
	_ = closed.Close()
	s := Spec{Type: TypeHTTP, URL: "http://me:" + secret + "@" + address + "/health?token=" + secret}
	p := New(s, Target{})
	err := p.Ping(t.Context())
	for _, text := range []string{p.String(), p.Describe(), fmt.Sprint(err)} {
		if strings.Contains(text, secret) || text == "" {
			t.Errorf("%q contains the password", text)
		}
	}
	if want := "http http://" + address + "/health?..."; p.String() != want {
		t.Errorf("the check is shown as %q, want %q", p, want)
	}
	if got := Brief(err); got != "connection refused" {
		t.Errorf("the answer is shown as %q", got)
	}
}
