package worker

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

func TestPortWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open, reads atomic.Int64
		var failure atomic.Pointer[error]
		p := &portWatch{list: func() (func(int) (somewhere, loopback bool), error) {
			reads.Add(1)
			if err := failure.Load(); err != nil {
				return nil, *err
			}
			now := int(open.Load())
			return func(port int) (bool, bool) { return port == now, false }, nil
		}}
		first, stopFirst := p.await(1)
		defer stopFirst()
		second, stopSecond := p.await(2)
		time.Sleep(time.Minute)
		if closed(first.over) || closed(second.over) {
			t.Fatal("a port counts as open, and none is")
		}
		if n, most := reads.Load(), int64(time.Minute/probeMost+100); n < most/2 || n > 4*most {
			t.Errorf("%d readings in a minute without a change", n)
		}
		open.Store(1)
		time.Sleep(probeMost)
		synctest.Wait()
		if !closed(first.over) || closed(second.over) {
			t.Errorf("port 1 is open: %t, %t", closed(first.over), closed(second.over))
		}
		open.Store(2)
		time.Sleep(2 * readPause) // often again after a change
		synctest.Wait()
		if !closed(second.over) {
			t.Error("port 2 is open, and its worker does not know")
		}
		before := reads.Load()
		third, stopThird := p.await(3)
		stopThird()
		stopSecond() // a second end of the same wait
		time.Sleep(time.Minute)
		if n := reads.Load() - before; n > 1 || closed(third.over) {
			t.Errorf("%d readings although no worker waits, %t", n, closed(third.over))
		}
		failure.Store(new(errors.New("no table")))
		fourth, stopFourth := p.await(4)
		defer stopFourth()
		synctest.Wait()
		if !closed(fourth.over) {
			t.Error("the table cannot be read, and the worker waits for it")
		}
	})
}

// A worker that starts while another one does not open its port is told as soon as if it were alone.
func TestPortWatchOfAWorkerThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portWatch{list: func() (func(int) (somewhere, loopback bool), error) {
			return func(port int) (bool, bool) { return port == 2, true }, nil
		}}
		_, stopSlow := p.await(1)
		time.Sleep(time.Minute + probeMost/3)
		quick, stopQuick := p.await(2)
		time.Sleep(2 * readPause)
		synctest.Wait()
		if !closed(quick.over) {
			t.Error("port 2 is open, and its worker waits as long as the other one")
		}
		stopSlow()
		stopQuick()
		time.Sleep(time.Minute) // the goroutine ends
	})
}

// A large table is read less often.
func TestPortWatchOfALargeTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 50 * time.Millisecond
		reads := 0
		p := &portWatch{list: func() (func(int) (somewhere, loopback bool), error) {
			time.Sleep(took)
			reads++
			return func(int) (bool, bool) { return false, false }, nil
		}}
		_, stop := p.await(1)
		time.Sleep(time.Minute)
		stop()
		time.Sleep(time.Minute) // the goroutine ends
		synctest.Wait()
		if most := int(time.Minute / (readShare * took)); reads > most {
			t.Errorf("%d readings in a minute, want %d at most", reads, most)
		}
	})
}

// A listener that the table shows at the address of the worker is not connected to. Here that would be refused.
func TestAwaitListenerBelievesTheTable(t *testing.T) {
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closing.Addr().(*net.TCPAddr).Port
	if err := closing.Close(); err != nil {
		t.Fatal(err)
	}
	kernel := opened
	defer func() { opened = kernel }()
	opened = &portWatch{list: func() (func(int) (somewhere, loopback bool), error) {
		return func(at int) (bool, bool) { return at == port, at == port }, nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := AwaitListener(ctx, port, func(error) {}); err != nil {
		t.Error(err)
	}
}

// A listener on another address does not end the wait, and the port that is needed does.
func TestAwaitListener(t *testing.T) {
	if _, err := sockets.Listening(); err != nil {
		t.Skip(err)
	}
	other, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = other.Close() }()
	port := other.Addr().(*net.TCPAddr).Port
	refused := make(chan error, 64)
	waited := make(chan error, 1)
	go func() {
		waited <- AwaitListener(t.Context(), port, func(err error) {
			select {
			case refused <- err:
			default:
			}
		})
	}()
	for range 3 {
		if err := <-refused; err == nil {
			t.Error("a connect to a port without a listener had no error")
		}
	}
	select {
	case err := <-waited:
		t.Fatalf("nothing listens on the address of the worker: %v", err)
	default:
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Skip(err) // another process has it
	}
	defer func() { _ = l.Close() }()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}
