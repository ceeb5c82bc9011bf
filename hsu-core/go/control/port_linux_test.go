package control

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// quietPort returns a port on which nothing listens yet. A socket that is bound to it keeps it from other programs
// until the end of the test; a listener with SO_REUSEADDR, as Go's have it, can take the port beside that socket.
func quietPort(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	loopback := [4]byte(net.IPv4(127, 0, 0, 1).To4())
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	return address.(*syscall.SockaddrInet4).Port
}
