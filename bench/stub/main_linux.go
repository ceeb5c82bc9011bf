package main

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"syscall"
)

func main() {
	err := run(os.Args)
	_, _ = os.Stderr.WriteString("stub: " + err.Error() + "\n")
	os.Exit(1)
}

// run serves on the port of the last argument, until a signal ends the process. It returns an error if it cannot.
func run(args []string) error {
	port, err := strconv.ParseUint(args[len(args)-1], 10, 16)
	if err != nil {
		return err
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.Listen(socket, syscall.SOMAXCONN); err != nil {
		return err
	}
	return serve(socket)
}

// serve handles all connections in one thread: each thread of a thousand processes costs memory.
func serve(listener int) error {
	poll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	watch := func(fd int) error {
		return syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, fd,
			&syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	}
	if err := watch(listener); err != nil {
		return err
	}
	conns := map[int]*conn{}
	var events [16]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(poll, events[:], -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			if fd != listener {
				if !conns[fd].read() {
					delete(conns, fd)
					_ = syscall.Close(fd) // the peer has closed it, or has broken the protocol
				}
				continue
			}
			accepted, _, err := syscall.Accept4(listener, syscall.SOCK_CLOEXEC)
			if err != nil {
				continue // the peer has given up
			}
			conns[accepted] = &conn{fd: accepted, skip: len(preface)}
			if err := watch(accepted); err != nil {
				return err
			}
			// SETTINGS without a setting. An error shows at the next read.
			_ = conns[accepted].write(frame(frameSettings, 0, 0, nil))
		}
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The types and flags of frames that matter here: RFC 9113, section 6.
const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
	framePing     = 0x6

	flagEnd        = 0x1 // of a stream
	flagAck        = 0x1
	flagEndHeaders = 0x4

	headerSize = 9
	maxFrame   = 16 << 10
)

type conn struct {
	fd   int
	skip int    // bytes of the preface that are still to come
	rest []byte // an incomplete frame
}

// read handles the bytes that have arrived. It reports false at the end of the connection.
func (c *conn) read() bool {
	var buffer [4 << 10]byte
	n, err := syscall.Read(c.fd, buffer[:])
	if n <= 0 || err != nil {
		return errors.Is(err, syscall.EINTR)
	}
	skipped := min(n, c.skip)
	c.skip -= skipped
	c.rest = append(c.rest, buffer[skipped:n]...)
	for len(c.rest) >= headerSize {
		size := int(c.rest[0])<<16 | int(c.rest[1])<<8 | int(c.rest[2])
		if size > maxFrame {
			return false
		}
		if len(c.rest) < headerSize+size {
			break
		}
		header, payload := c.rest[:headerSize], c.rest[headerSize:headerSize+size]
		if answer := answerTo(header, payload); answer != nil && !c.write(answer) {
			return false
		}
		c.rest = c.rest[headerSize+size:]
	}
	if len(c.rest) == 0 {
		c.rest = nil
	}
	return true
}

func (c *conn) write(p []byte) bool {
	for len(p) > 0 {
		n, err := syscall.Write(c.fd, p)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return false
		}
		p = p[max(n, 0):]
	}
	return true
}

// emptyMessage is a gRPC message of no bytes, with its length.
const emptyMessage = "\x00\x00\x00\x00\x00"

// Header blocks without the dynamic table: RFC 7541. The first is ":status: 200" and the content type.
const (
	answerHeaders = "\x88\x0f\x10\x10application/grpc"
	statusOK      = "\x00\x0bgrpc-status\x010"
	unimplemented = "\x00\x0bgrpc-status\x0212"
)

// answerTo returns the frames that answer a frame, nil if none do. A call with an empty message, such as a Ping, is
// answered with an empty message. All others are unimplemented, such as the reflection.
func answerTo(header, payload []byte) []byte {
	kind, flags := header[3], header[4]
	stream := binary.BigEndian.Uint32(header[5:])
	switch {
	case kind == frameSettings && flags&flagAck == 0:
		return frame(frameSettings, flagAck, 0, nil)
	case kind == framePing && flags&flagAck == 0:
		return frame(framePing, flagAck, 0, payload)
	case kind != frameData || len(payload) == 0:
		return nil
	case string(payload) != emptyMessage:
		return frame(frameHeaders, flagEndHeaders|flagEnd, stream, []byte(answerHeaders+unimplemented))
	}
	answer := frame(frameHeaders, flagEndHeaders, stream, []byte(answerHeaders))
	answer = append(answer, frame(frameData, 0, stream, []byte(emptyMessage))...)
	return append(answer, frame(frameHeaders, flagEndHeaders|flagEnd, stream, []byte(statusOK))...)
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	f := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(f, stream), payload...)
}
