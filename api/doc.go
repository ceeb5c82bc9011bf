// Package api is what the master serves: the business service, the HSU core
// service and health on its port, and the admin service on a unix socket.
//
// It knows status codes (errors.go) and messages; what is behind them is decided
// in packages supervisor and store.
package api
