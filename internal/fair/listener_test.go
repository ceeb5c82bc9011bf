package fair

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// crowd accepts connections from peers that name themselves with one byte.
func crowd(t *testing.T, most int) (address string, refused chan error) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused = make(chan error, 10*most)
	l := &Listener{
		Listener: inner, Most: func() int { return most }, Refused: func(err error) { refused <- err },
		Identify: func(c net.Conn) (net.Conn, any, error) {
			var name [1]byte
			_, err := io.ReadFull(c, name[:])
			return c, name[0], err
		},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // until the peer closes it
				_, _ = c.Write([]byte{'+'})
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = inner.Close(); <-ended })
	return inner.Addr().String(), refused
}

// connect reports whether a connection of a peer is served.
func connect(t *testing.T, address, peer string) (net.Conn, bool) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := errors.Join(c.SetDeadline(time.Now().Add(time.Minute)), second(io.WriteString(c, peer))); err != nil {
		t.Fatal(err)
	}
	var answer [1]byte
	_, err = io.ReadFull(c, answer[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return c, err == nil
}

func second(_ int, err error) error { return err }

// One peer leaves places to others, and a place that it gives back can be taken again.
func TestListener(t *testing.T) {
	const most = 66
	address, refused := crowd(t, most)
	var greedy []net.Conn
	for {
		c, served := connect(t, address, "a")
		if !served {
			break
		}
		if greedy = append(greedy, c); len(greedy) > most {
			t.Fatal("a peer has more connections than there are places")
		}
	}
	if got := len(greedy); got != 64 {
		t.Errorf("a peer has %d of %d places, want 64", got, most)
	}
	if err := <-refused; !errors.Is(err, errCrowded) {
		t.Errorf("refused with %v", err)
	}
	if _, served := connect(t, address, "b"); !served {
		t.Error("another peer has no place")
	}
	for _, c := range greedy[:10] {
		_ = c.Close()
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, served := connect(t, address, "a"); served {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the places of closed connections stay taken")
		}
	}
}
