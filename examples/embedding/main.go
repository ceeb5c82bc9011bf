// Command embedding is a master in a program of your own, with units of three kinds. If it is killed, the next one
// takes over the processes that still run. "hsu-master status --state-dir STATE" shows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func main() {
	master.RunStartHelper() // for units with a umask or limits
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: embedding STATE HSU-WORKER")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "embedding: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, state, worker string) (err error) {
	pages := unit.Spec{ // any program
		Name: "pages", Kind: unit.Managed, Replicas: 1, Path: "/usr/bin/python3",
		Args:      []string{"-m", "http.server", "{port}", "--bind", "127.0.0.1"},
		Health:    unit.Health{Readiness: probe.Spec{Type: probe.TypeHTTP, URL: "http://127.0.0.1:{port}/"}},
		DependsOn: []unit.Dependency{{Unit: "search", Condition: unit.Ready}},
	}
	search := unit.Spec{Name: "search", Path: worker, Replicas: 2} // gRPC servers, called through the master
	cache := unit.Spec{                                            // a process that something else starts
		Name: "cache", Kind: unit.Unmanaged, Replicas: 1,
		Discover: process.Pattern{PIDFile: filepath.Join(state, "cache.pid")},
	}
	m, err := master.New(master.Options{
		StateDir: state, Listen: master.ListenTCP("127.0.0.1:0"), Units: []unit.Spec{search, pages, cache},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return m.Run(ctx)
}
