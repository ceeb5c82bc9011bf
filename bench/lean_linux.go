package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	gproto "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
)

// childLean is childLoad with a client of negligible cost, so that the server is measured: each caller writes a
// request with one system call and reads its answer itself, one call at a time on a connection. If there are more
// connections than callers, each caller uses several in turn.
func childLean(c *childIO) error {
	var numbers [3]int
	for i, arg := range c.args[2:5] {
		var err error
		if numbers[i], err = strconv.Atoi(arg); err != nil {
			return err
		}
	}
	callers, conns, size := numbers[0], numbers[1], numbers[2]
	if callers > conns {
		return fmt.Errorf("%d callers: must be %d or fewer, one for each connection", callers, conns)
	}
	addresses := strings.Split(c.args[0], ",")
	message, err := gproto.Marshal(&proto.ProcessRequest{Data: sized(size)})
	if err != nil {
		return err
	}
	l := &lean{callers: callers}
	for i := range conns {
		conn, err := dialLean(addresses[i%len(addresses)], "/"+c.args[1]+"/ProcessData", message)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		l.conns = append(l.conns, conn)
	}
	l.load.latencies = make([][]time.Duration, callers)
	return orders(c, func(order loadOrder) (loadAnswer, error) {
		if order.For == 0 {
			return l.summary(), nil
		}
		return l.run(order.For)
	})
}

type lean struct {
	load
	callers int
	conns   []*leanConn
}

// run is like load.run.
func (l *lean) run(d time.Duration) (loadAnswer, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var over atomic.Bool
	defer time.AfterFunc(d, func() { over.Store(true) }).Stop()
	counts := make([]int64, l.callers)
	var wg sync.WaitGroup
	started := time.Now()
	for i := range counts {
		wg.Go(func() {
			for next := i; !over.Load() && ctx.Err() == nil; next = (next + l.callers) % len(l.conns) {
				called := time.Now()
				if err := l.conns[next].call(); err != nil {
					cancel(err)
					return
				}
				l.latencies[i] = append(l.latencies[i], time.Since(called))
				counts[i]++
			}
		})
	}
	wg.Wait()
	answer := loadAnswer{Took: time.Since(started)}
	for _, n := range counts {
		answer.Calls += n
	}
	return answer, context.Cause(ctx)
}

// leanConn is a connection that carries one call at a time.
type leanConn struct {
	net.Conn
	in      *bufio.Reader
	framer  *http2.Framer
	request []byte // both frames; only the stream ID changes
	second  int    // offset of the second frame
	stream  uint32
}

// leanPatience is the longest time that a call may take.
const leanPatience = 30 * time.Second

func dialLean(address, path string, message []byte) (*leanConn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &leanConn{Conn: conn, in: bufio.NewReaderSize(conn, 4<<10), stream: 1}
	c.framer = http2.NewFramer(conn, c.in)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	// Flow-control windows that last for the whole run.
	const widest = 1<<31 - 1
	_, err = io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err,
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: widest},
			http2.Setting{ID: http2.SettingEnablePush}),
		c.framer.WriteWindowUpdate(0, widest-1<<16))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// A header block that does not use the dynamic table is the same for every request.
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for _, pair := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", path},
		{":authority", address},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1], Sensitive: true}); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	frame := func(kind http2.FrameType, flags http2.Flags, payload []byte) {
		size := len(payload)
		c.request = append(c.request, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags), 0, 0, 0, 0)
		c.request = append(c.request, payload...)
	}
	frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, []byte(block.String()))
	c.second = len(c.request)
	frame(http2.FrameData, http2.FlagDataEndStream,
		append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
	return c, nil
}

// call makes one call and returns when it was answered with OK.
func (c *leanConn) call() error {
	const at = 5 // offset of the stream ID in a frame header
	binary.BigEndian.PutUint32(c.request[at:], c.stream)
	binary.BigEndian.PutUint32(c.request[c.second+at:], c.stream)
	if err := c.SetDeadline(time.Now().Add(leanPatience)); err != nil {
		return err
	}
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				c.stream += 2
				return statusOf(f)
			}
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("the stream was reset: %s", f.ErrCode)
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the server goes away: %s", f.ErrCode)
		}
		if err != nil {
			return err
		}
	}
}

// statusOf returns the error in the trailers.
func statusOf(f *http2.MetaHeadersFrame) error {
	for _, field := range f.Fields {
		if field.Name == "grpc-status" && field.Value == "0" {
			return nil
		}
	}
	return fmt.Errorf("not answered with OK: %v", f.Fields)
}
