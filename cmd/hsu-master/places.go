package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api"
)

// placesInterval is how often a master looks whether what others find it by is still
// in its place. Somebody tidies up /run, or deletes the state folder by mistake.
const placesInterval = 5 * time.Second

// keepPlaces looks until ctx ends, and brings back what is gone.
func (d *daemon) keepPlaces(ctx context.Context, wg *sync.WaitGroup) {
	tick := time.NewTicker(placesInterval)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := d.keepPlace(ctx, wg)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			d.log.Warn("admin socket not brought back", "error", err)
		}
	}
}

func (d *daemon) keepPlace(ctx context.Context, wg *sync.WaitGroup) error {
	// It makes the store look for its files, which else it does when it writes.
	if err := d.store.Alive(ctx); err != nil || d.store.Available() != nil {
		return nil //nolint:nilerr // then it says so itself, and nothing is put where the state may come back to
	}
	path := d.cfg.folders.socket()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(d.cfg.folders.runtime, 0o700); err != nil {
		return fmt.Errorf("make the runtime folder: %w", err)
	}
	listener, err := api.ListenAdmin(ctx, path)
	if err != nil {
		return err
	}
	// The first one lives on, for those who are connected, and must not take the
	// socket's name along at its end.
	if old, ok := d.adminOn.(*net.UnixListener); ok {
		old.SetUnlinkOnClose(false)
	}
	d.adminOn = listener
	wg.Go(func() {
		if err := d.admin.Serve(listener); err != nil {
			d.log.Warn("admin socket not served any more", "error", err)
		}
	})
	d.log.Warn("admin socket was deleted under way, listening anew", "socket", path)
	return d.cfg.folders.announce()
}
