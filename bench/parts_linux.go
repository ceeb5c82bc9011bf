package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/core-tools/hsu-master/bench/baseline"
)

// done is an empty answer or order.
type done struct{}

type address struct{ Address string }

// childUncounted serves without counting. Its arguments are its directory and its mode. In mode syncing, the handler of
// each call makes a record durable by itself, so only one call at a time is possible.
func childUncounted(c *childIO) (err error) {
	var each func() error
	if mode(c.args[1]) == syncing {
		syncer, e := baseline.NewSyncer(c.args[0])
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, syncer.Close()) }()
		each = func() error {
			_, err := syncer.Sync()
			return err
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- baseline.ServeUncounted(ctx, c.args[0], listener, each) }()
	err = orders(c, func(done) (address, error) { return address{listener.Addr().String()}, nil })
	cancel()
	return errors.Join(err, <-served)
}

type syncOrder struct{ For time.Duration }

// childSync measures a write and its sync alone. Its argument is its directory.
func childSync(c *childIO) error {
	syncer, err := baseline.NewSyncer(c.args[0])
	if err != nil {
		return err
	}
	err = orders(c, func(order syncOrder) (percentiles, error) {
		var took []time.Duration
		for end := time.Now().Add(order.For); time.Now().Before(end); {
			d, err := syncer.Sync()
			if err != nil {
				return percentiles{}, err
			}
			took = append(took, d)
		}
		return *percentilesOf(took), nil
	})
	return errors.Join(err, syncer.Close())
}

// startOrder starts workers, or stops all if there are none to start.
type startOrder struct {
	Workers int
	Replace bool // the last one is killed, and one is started in its place
	// Args are those of a program of any kind. Without them the program is a worker, which is to be ready.
	Args []string
}

// childStart starts workers in a bare loop. Its arguments are the program, and a folder if the starts are to be
// recorded. It kills all workers when it ends.
func childStart(c *childIO) (err error) {
	starter := baseline.NewStarter(c.args[0])
	if len(c.args) > 1 {
		if starter, err = baseline.NewRecordingStarter(c.args[0], c.args[1]); err != nil {
			return err
		}
	}
	err = orders(c, func(order startOrder) (time.Duration, error) {
		if order.Workers == 0 && !order.Replace {
			return 0, starter.Stop()
		}
		ctx, cancel := context.WithTimeout(context.Background(), startPatience)
		defer cancel()
		started := time.Now()
		var err error
		switch {
		case order.Replace:
			err = starter.Replace(ctx)
		case order.Args != nil:
			err = starter.Exec(order.Workers, order.Args...)
		default:
			err = starter.Start(ctx, order.Workers)
		}
		return time.Since(started), err
	})
	return errors.Join(err, starter.Stop())
}

type idleOrder struct{ Ports []int }

// childIdle holds connections to workers. Its argument is its directory.
func childIdle(c *childIO) error {
	var idle *baseline.Idle
	err := orders(c, func(order idleOrder) (_ done, err error) {
		if idle != nil {
			return done{}, errors.New("it has its connections already")
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return done{}, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), startPatience)
		defer cancel()
		idle, err = baseline.NewIdle(ctx, c.args[0], listener, order.Ports)
		return done{}, err
	})
	if idle != nil {
		err = errors.Join(err, idle.Close())
	}
	return err
}

// newFolder creates a directory for one server.
func (l *lab) newFolder() (string, error) {
	dir, err := os.MkdirTemp(l.dir, "state-")
	if err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	return dir, nil
}
