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
	"github.com/core-tools/hsu-master/store"
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
		if w.asked.tries >= discoveryTries && !w.confirmed {
			// What the instance before has denied need not hold for this one.
			w.publishOffers(ctx, w.served(), offersOf(w.unit, reflected(w.rec.Services), nothing))
		}
		return // the next tick asks again
	}
	w.asked.tries = discoveryTries
	before := w.served()
	w.confirmed = true
	unlisted := nothing // it has no reflection
	if d.err == nil {
		unlisted = func(name string) bool { return !slices.Contains(d.names, name) }
	}
	told := routable(slices.Clone(d.names))
	if most := maxOffers - len(w.unit.Services); len(told) > most {
		w.log.Warn("worker offers too many services, the rest is left out", "offers", len(told), "most", most)
		told = told[:most]
	}
	w.publishOffers(ctx, before, offersOf(w.unit, told, unlisted))
}

func nothing(string) bool { return false }

// publishOffers has the worker offer these from now on. Before are the services that
// calls could come for until then.
func (w *worker) publishOffers(ctx context.Context, before []string, offers []store.Offer) {
	if !slices.Equal(offers, w.rec.Services) {
		w.rec.Services = offers
		w.log.Info("worker offers services", "services", strings.Join(reflected(offers), " "))
		for _, o := range offers {
			if o.Unlisted && !o.Assumed {
				w.log.Warn("worker does not offer a service that it is said to", "service", o.Name)
			}
		}
		// Before anybody can call them: a crash must not take a route away that was
		// there. Where nothing can be recorded now, the next change brings it.
		if w.sup.opts.Store.Writable() == nil {
			w.record(ctx)
		}
		w.offer()
	}
	after := w.served()
	if w.endpoint != nil && !slices.Equal(before, after) {
		crashpoint.Pass(crashpoint.Told, func() {
			w.sup.services.Add(w.endpoint, after...)
			w.sup.services.Withdraw(w.endpoint, slices.DeleteFunc(before, func(name string) bool { return slices.Contains(after, name) })...)
		})
	}
}

// routable leaves out what is no name, and what each endpoint has for itself.
func routable(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return services.CheckName(name) != nil || services.Infrastructure(name)
	})
}
