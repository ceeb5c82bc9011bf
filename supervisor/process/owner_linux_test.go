package process

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestPortHolder(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	eachSource(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		pid, name, found := PortHolder(port)
		// On a busy machine, ownerPatience may end before the process is found.
		for deadline := time.Now().Add(patience); !found && time.Now().Before(deadline); {
			pid, name, found = PortHolder(port)
		}
		if want := strings.TrimSpace(string(comm)); !found || pid != os.Getpid() || name != want {
			t.Errorf("PortHolder = %d, %q, %v, want %d, %q", pid, name, found, os.Getpid(), want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		// Another process may listen on the port by now.
		if pid, name, found := PortHolder(port); found && pid == os.Getpid() {
			t.Errorf("a closed port is held by %d, %q", pid, name)
		}
	})
}
