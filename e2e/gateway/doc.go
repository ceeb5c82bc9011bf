// Package gateway tests the calls through the port of the master: where they go while workers come and go, what is
// tried again, what one client may use, that endpoints and clients that send garbage harm nobody else, and that
// foreign implementations of gRPC and HTTP/2 get along with it.
package gateway
