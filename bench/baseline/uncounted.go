package baseline

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

// ServeUncounted serves as hsu-master without workers does, but does not count the calls that it processes: its
// server, handler, supervisor and (idle) store in dir. In place of the count, the handler calls each, unless it is nil.
// ServeUncounted returns when ctx has ended.
func ServeUncounted(ctx context.Context, dir string, listener net.Listener, each func() error) (err error) {
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sup, err := supervisor.New(supervisor.Options{Store: db})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server, err := api.NewGateway(api.GatewayOptions{
		Services: sup.Services(), Business: api.NewBusiness(sup, uncounted{each}), Counter: uncounted{},
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server.SetServing(true)
	served, supervised := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	go func() { supervised <- sup.Serve(ctx) }()
	<-ctx.Done()
	server.Close()
	if err := errors.Join(<-served, <-supervised); err != nil {
		return fmt.Errorf("serve without counting: %w", err)
	}
	return nil
}

// uncounted replaces the store behind the handler.
type uncounted struct{ each func() error }

func (u uncounted) AddProcessed(context.Context, int64) error {
	if u.each == nil {
		return nil
	}
	return u.each()
}

func (uncounted) Count(done interface{ Counted(err error) }) { go done.Counted(nil) }

func (uncounted) Processed() int64 { return 0 }

func (uncounted) Writable() error { return nil }

func (uncounted) Result(string) (records.Result, bool, error) { return records.Result{}, false, nil }

func (uncounted) CountOnce(_ records.Result, done store.Counted) { done.Counted(nil) }
