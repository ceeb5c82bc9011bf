//go:build unix

package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listenerAddress returns the address on which a socket listens. It does not change the socket, which others use too:
// package net would set it to blocking mode for a moment.
func listenerAddress(f *os.File) (address net.Addr, err error) {
	if !listens(f) {
		return nil, fmt.Errorf("%s is no socket that listens", f.Name())
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var socket unix.Sockaddr
	if e := raw.Control(func(fd uintptr) { socket, err = unix.Getsockname(int(fd)) }); e != nil {
		return nil, e
	}
	switch s := socket.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: s.Addr[:], Port: s.Port}, err
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: s.Addr[:], Port: s.Port}, err
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: s.Name, Net: "unix"}, err
	}
	return nil, err
}
