// Command custom-master shows how to build a custom master. It embeds hsu-master's supervisor and store, and
// serves a business service that hsu-master does not know. After a crash and a restart it takes over the workers
// that are still running.
//
//	go run . --port 50061 --state-dir ./state --workers 2
//
// Its workers are this same program with the argument "worker".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/unit"

	"example.com/custom-master/proto"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	run := runMaster
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "worker" {
		run, args = runWorker, args[1:]
	}
	if err := run(log, args); err != nil {
		fmt.Fprintln(os.Stderr, "custom-master: error:", err)
		os.Exit(1)
	}
}

func runMaster(log *slog.Logger, args []string) (err error) {
	flags := flag.NewFlagSet("custom-master", flag.ExitOnError)
	port := flags.Int("port", 50061, "port to serve requests on")
	dir := flags.String("state-dir", "state", "folder of the registry")
	workers := flags.Int("workers", 2, "how many workers to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}

	// Open the registry first: the process that holds its lock is the master.
	db, err := store.Open(*dir, store.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sup, err := supervisor.New(supervisor.Options{Store: db, Log: log},
		unit.Spec{Name: "worker", Path: self, Args: []string{"worker"}, Replicas: *workers})
	if err != nil {
		return err
	}
	core := probe.CoreLogger(log)
	server, err := control.NewServer(control.ServerOptions{Port: *port}, core)
	if err != nil {
		return fmt.Errorf("serve requests: %w", err)
	}
	control.RegisterGRPCServerHandler(server.GRPC(), domain.NewDefaultHandler(core), core)
	proto.RegisterMyBusinessServiceServer(server.GRPC(), &business{workers: sup, store: db})

	// Serve adopts the workers of an earlier master, starts the missing ones, and stops all of them when ctx is
	// done. cancel(supervisor.ErrDetach) would leave them running.
	ctx, cancel := context.WithCancelCause(context.Background())
	supervised := make(chan error, 1)
	go func() {
		err := sup.Serve(ctx)
		if ctx.Err() == nil {
			// The supervisor failed. The workers keep running, and the next master finds them.
			log.Error("supervisor ended", "error", err)
			os.Exit(1)
		}
		supervised <- err
	}()
	server.Run(func() {
		cancel(nil)
		err = <-supervised
	})
	return err
}
