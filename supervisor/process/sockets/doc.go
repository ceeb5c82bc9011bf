// Package sockets asks the kernel for TCP sockets of this network namespace: the listeners on a port, and the other end
// of a connection. It also reserves ports. Package process finds the process that has a socket open.
//
// Reading /proc/net/tcp walks through all connections to find the listeners, which takes milliseconds; sock_diag(7)
// takes a tenth of a millisecond.
package sockets
