package probe

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTCP(t *testing.T) {
	open := listen(t).Addr().String()
	closed := listen(t)
	address := closed.Addr().String()
	_ = closed.Close()
	for name, test := range map[string]struct {
		spec   Spec
		target Target
		want   string
	}{
		"open":       {Spec{Address: open}, Target{}, ""},
		"own port":   {Spec{}, Target{Address: open}, ""},
		"closed":     {Spec{Address: address}, Target{Address: open}, "connect " + address + ": connection refused"},
		"black hole": {Spec{Address: blackHole(t)}, Target{}, "no answer in time"},
	} {
		test.spec.Type, test.spec.Timeout = TypeTCP, time.Minute
		if name == "black hole" {
			test.spec.Timeout = aMoment
		}
		got := ask(t, test.spec, test.target)
		if got != test.want && (name != "black hole" || !strings.HasSuffix(got, test.want)) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// blackHole returns the address of a listener whose backlog is full, so that connects to it get no answer.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, aMoment)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("the backlog is never full here")
	return ""
}
