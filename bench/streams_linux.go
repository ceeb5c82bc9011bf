package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
)

// bulkMessage is the size of the messages of a bulk transfer in bytes.
const bulkMessage = 64 << 10

type (
	bulkOrder  struct{ Bytes int64 }
	bulkAnswer struct{ Took time.Duration }
)

// childBulk sends messages through one stream that echoes them. Its argument is the address.
func childBulk(c *childIO) error {
	conn, err := grpc.NewClient(c.args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return orders(c, func(order bulkOrder) (bulkAnswer, error) {
		started := time.Now()
		err := bulk(conn, order.Bytes)
		return bulkAnswer{time.Since(started)}, err
	})
}

func bulk(conn *grpc.ClientConn, size int64) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := openEcho(ctx, conn)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		message := filler(bulkMessage)
		for left := size; left > 0; left -= bulkMessage {
			if err := stream.SendMsg(message); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	got, answer := int64(0), new(proto.ProcessRequest)
	for {
		if err = stream.RecvMsg(answer); err != nil {
			break
		}
		got += int64(len(answer.GetData()))
	}
	if errors.Is(err, io.EOF) && got < size {
		err = fmt.Errorf("of %d bytes %d came back", size, got)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	cancel()
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return err
}

type (
	copyOrder  struct{}
	copyAnswer struct{ Address string }
)

// childCopy copies the bytes of TCP connections inside the kernel, without passing them to the process. Its
// argument is the address to copy to.
func childCopy(c *childIO) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go copyBothWays(conn, c.args[0])
		}
	}()
	return orders(c, func(copyOrder) (copyAnswer, error) { return copyAnswer{listener.Addr().String()}, nil })
}

func copyBothWays(from net.Conn, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		_ = from.Close()
		return
	}
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{to, from}, {from, to}} {
		ways.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
		})
	}
	ways.Wait()
}

// startCopy starts childCopy and returns its address.
func (l *lab) startCopy(ctx context.Context, to string) (*child, string, error) {
	c, err := l.startChild("copy", to)
	if err != nil {
		return nil, "", err
	}
	var answer copyAnswer
	if err := c.ask(ctx, copyOrder{}, &answer); err != nil {
		return nil, "", errors.Join(err, c.stop())
	}
	return c, answer.Address, nil
}

type holdOrder struct{ Streams int }

// childHold opens streams and keeps them idle. Its args are the address and the number of connections.
func childHold(c *childIO) error {
	n, err := strconv.Atoi(c.args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var conns []*grpc.ClientConn
	for range n {
		conn, err := grpc.NewClient(c.args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		conns = append(conns, conn)
	}
	return orders(c, func(order holdOrder) (done, error) {
		// Open a few at a time: the cost of idle streams is measured, not that of many simultaneous starts.
		const atOnce = 16
		var wg sync.WaitGroup
		failed := make([]error, atOnce)
		for worker := range atOnce {
			wg.Go(func() {
				for i := worker; i < order.Streams && failed[worker] == nil; i += atOnce {
					failed[worker] = hold(ctx, conns[i%len(conns)])
				}
			})
		}
		wg.Wait()
		return done{}, errors.Join(failed...)
	})
}

// hold opens one stream and has one message echoed, so that the stream is fully established.
func hold(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := openEcho(ctx, conn)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(filler(16)); err != nil {
		return err
	}
	return stream.RecvMsg(new(proto.ProcessRequest))
}
