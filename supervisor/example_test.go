package supervisor_test

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A program that keeps three workers running, and adopts those that it finds running when it is started again.
// Package master adds the servers.
func Example() {
	db, err := store.Open("/var/lib/demo", store.Options{})
	if err != nil {
		panic(err)
	}
	s, err := supervisor.New(supervisor.Options{Store: db},
		unit.Spec{Name: "echo", Path: "/usr/lib/demo/echo", Replicas: 3})
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := errors.Join(s.Serve(ctx), db.Close()); err != nil {
		panic(err)
	}
}
