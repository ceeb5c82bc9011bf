//go:build !linux

package tail

import "time"

// watcher has all logs looked at regularly.
type watcher struct {
	subscriptions
	stopped, ended chan struct{}
}

const interval = 250 * time.Millisecond

func watchFolder(string) (*watcher, error) {
	w := &watcher{stopped: make(chan struct{}), ended: make(chan struct{})}
	go w.serve()
	return w, nil
}

func (w *watcher) stop() {
	close(w.stopped)
	<-w.ended
}

func (w *watcher) serve() {
	defer close(w.ended)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.noteAll()
		case <-w.stopped:
			return
		}
	}
}
