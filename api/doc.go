// Package api implements the gRPC servers of the master: the business service, the HSU core service, the health
// service and reflection on its port, and the admin service and the registry on a unix socket. It also serves metrics.
//
// A [Gateway] serves the port. Package relay forwards the calls of routed services to endpoints, and passes the others
// to the master's own server. That server forwards a ProcessData with a request id itself (once.go, forward.go).
//
// The package converts between messages, status codes (errors.go) and the types of packages supervisor and store,
// which make the decisions.
package api
