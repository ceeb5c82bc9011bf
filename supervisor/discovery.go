package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// discoveryTimeout bounds the question which services a worker offers.
	discoveryTimeout = 2 * time.Second
	// discoveryTries is how often it is asked that gives no answer.
	discoveryTries = 5
	// maxOffers bounds what is believed of a worker.
	maxOffers = 256
)

// discovery is what a worker has told of its services.
type discovery struct {
	incarnation uint64
	names       []string
	err         error
}

// discover asks the worker, unless that has been done, which services it offers
// besides those that its unit says.
func (w *worker) discover(ctx context.Context) {
	if w.asking || w.endpoint == nil || w.link == nil || w.link.GRPC() == nil || w.asked.incarnation == w.rec.Incarnation && w.asked.tries >= discoveryTries {
		return
	}
	if w.asked.incarnation != w.rec.Incarnation {
		w.asked.incarnation, w.asked.tries = w.rec.Incarnation, 0
	}
	w.asked.tries++
	w.asking = true
	incarnation, conn := w.rec.Incarnation, w.link.GRPC()
	w.helpers.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, discoveryTimeout)
		defer cancel()
		names, err := services.NewReflection(bounded, conn).List()
		// Room for one, and only one question is under way.
		w.told <- discovery{incarnation: incarnation, names: names, err: err}
	})
}

// onTold takes up what the worker has told.
func (w *worker) onTold(ctx context.Context, d discovery) {
	w.asking = false
	if d.incarnation != w.rec.Incarnation || w.inst == nil || w.burying || ctx.Err() != nil {
		return
	}
	if d.err != nil && status.Code(d.err) != codes.Unimplemented {
		w.log.Debug("worker's services not told", "error", fmt.Sprintf("%.200q", d.err.Error()))
		return // the next tick asks again
	}
	w.asked.tries = discoveryTries
	w.confirmed = true
	told := routable(d.names)
	if most := maxOffers - len(w.unit.Services); len(told) > most {
		w.log.Warn("worker offers too many services, the rest is left out", "offers", len(told), "most", most)
		told = told[:most]
	}
	offers := offersOf(w.unit, told)
	var dropped []string
	if !slices.Equal(offers, w.rec.Services) {
		for _, o := range w.rec.Services {
			if !offered(offers, o.Name) {
				dropped = append(dropped, o.Name)
			}
		}
		w.rec.Services = offers
		w.log.Info("worker offers services", "services", strings.Join(recalled(offers), " "))
		// Before anybody can call them: a crash must not take a route away that was
		// there. Where nothing can be recorded now, the next change brings it.
		if w.sup.opts.Store.Writable() == nil {
			w.record(ctx)
		}
		w.offer()
	}
	if w.endpoint != nil && len(told)+len(dropped) > 0 {
		crashpoint.Pass(crashpoint.Told, func() {
			w.sup.services.Add(w.endpoint, w.served()...)
			w.sup.services.Withdraw(w.endpoint, dropped...)
		})
	}
}

// routable leaves out what is no name, and what each endpoint has for itself.
func routable(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return services.CheckName(name) != nil || services.Infrastructure(name)
	})
}
