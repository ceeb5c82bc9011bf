package sockets

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// reserved returns a port with a reservation that ends with the test.
func reserved(t *testing.T, reserve func(int) (*Reservation, error)) int {
	t.Helper()
	var port int
	var r *Reservation
	for r == nil {
		l, err := net.Listen("tcp", ":0") // a port that is free on every address
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		// If another process has taken the port since, the next one is as good.
		if r, err = reserve(port); err != nil && !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return port
}

// listenWith listens with exactly these options.
func listenWith(t *testing.T, address [4]byte, port int, options ...int) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, option := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: address}); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

func TestReservedPortIsForThoseWhoShareIt(t *testing.T) {
	loopback, every := [4]byte{127, 0, 0, 1}, [4]byte{}
	for name, reserve := range map[string]func(int) (*Reservation, error){
		"reserved": Reserve, "claimed": Claim,
	} {
		t.Run(name, func(t *testing.T) {
			port := reserved(t, reserve)
			for _, address := range [][4]byte{loopback, every} {
				for _, options := range [][]int{
					{unix.SO_REUSEADDR}, {unix.SO_REUSEPORT}, {unix.SO_REUSEADDR, unix.SO_REUSEPORT},
				} {
					if err := listenWith(t, address, port, options...); err != nil {
						t.Errorf("listen on %v with options %v: %v", address, options, err)
					}
				}
				if err := listenWith(t, address, port); !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("listen on %v without an option: %v, want it in use", address, err)
				}
			}
			for _, host := range []string{"127.0.0.1", "", "[::]"} { // as Go programs do
				l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
				if err != nil {
					t.Errorf("net.Listen on %q: %v", host, err)
					continue
				}
				if r, err := Reserve(port); !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("a reservation beside a listener of Go: %v, %v", r, err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a connect: %v, %v, want it refused", conn, err)
			}
			if r, err := Claim(port); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("a claim of a reserved port: %v, %v", r, err)
			}
		})
	}
}

func TestReservedPortIsNotGivenToAnybodyElse(t *testing.T) {
	port := reserved(t, Claim)
	for range 2000 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr().(*net.TCPAddr).Port == port {
			t.Fatal("the kernel gave the reserved port out")
		}
		_ = l.Close()
	}
}
