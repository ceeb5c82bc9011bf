package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

// reloadPoll is the interval at which a reload asks which workers it waits for.
const reloadPoll = time.Second

// reloadWait finds out which workers a reload waits for, until it ends.
type reloadWait struct {
	last   atomic.Pointer[string] // the workers, "" for none
	cancel context.CancelFunc
	over   chan struct{}
}

// watchReload begins to show in p which workers a reload waits for. A master that does not answer is no fault of the
// reload.
func watchReload(
	ctx context.Context, client adminpb.AdminClient, plan *adminpb.ReloadResponse, p *render.Progress,
) *reloadWait {
	ctx, cancel := context.WithCancel(ctx)
	w := &reloadWait{cancel: cancel, over: make(chan struct{})}
	go func() {
		defer close(w.over)
		tick := time.NewTicker(reloadPoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			resp, err := client.ListWorkers(ctx, &adminpb.ListWorkersRequest{})
			if err != nil {
				continue
			}
			text := strings.Join(waitedFor(plan, resp.GetWorkers()), ", ")
			w.last.Store(&text)
			p.Detail.Store(&text)
		}
	}()
	return w
}

// end returns the workers that the reload waited for last, "" if none are known.
func (w *reloadWait) end() string {
	w.cancel()
	<-w.over
	if last := w.last.Load(); last != nil {
		return *last
	}
	return ""
}

// waitedFor describes the workers that a reload with this plan waits for: the new ones that are not ready, and those
// that are tried again, for which new ones may wait; else the next one that is replaced; else those that are being
// stopped.
func waitedFor(plan *adminpb.ReloadResponse, workers []*adminpb.Worker) []string {
	byID := map[string]*adminpb.Worker{}
	for _, w := range workers {
		byID[w.GetId()] = w
	}
	of := func(action supervisor.Action, waits func(*adminpb.Worker) bool) (list []string) {
		for _, c := range plan.GetChanges() {
			for _, id := range c.GetWorkers() {
				if w := byID[id]; w != nil && c.GetAction() == string(action) && waits(w) {
					list = append(list, describeWait(w))
				}
			}
		}
		return list
	}
	notReady := func(w *adminpb.Worker) bool {
		return !w.GetReady() && w.GetStatus() != string(records.StatusCompleted)
	}
	if list := append(of(supervisor.ActionRetry, notReady), of(supervisor.ActionStart, notReady)...); len(list) > 0 {
		return list
	}
	if list := of(supervisor.ActionReplace, notReady); len(list) > 0 {
		return slices.Clip(list[:1])
	}
	return of(supervisor.ActionStop, func(*adminpb.Worker) bool { return true })
}

func describeWait(w *adminpb.Worker) string {
	text := w.GetStatus()
	if waiting := w.GetWaitingFor(); waiting != "" {
		text += ": " + waiting
	}
	return render.Printable(fmt.Sprintf("%s (%s)", w.GetId(), text))
}
