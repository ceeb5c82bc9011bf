package worker

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// routes are the services of one worker: those that it offers, and those for which it gets requests. The worker's
// goroutine owns it.
type routes struct {
	registry *services.Registry
	worker   string
	unit     *unit.Spec
	log      *slog.Logger

	offers   []records.Offer
	endpoint *services.Endpoint // nil while the worker is not ready
	admitted uint64             // the last incarnation that was ready
	// confirmed reports whether the present instance itself, or one like it, has reported its services.
	confirmed bool
	asked     struct {
		incarnation uint64
		tries       int
		pending     bool // a query is in flight
		answers     bool // the last query got an answer to GetStatus of the DefaultService
	}
}

// DiscoveryTries is the number of queries to a worker that gives no answer.
const DiscoveryTries = 5

// discovery is a worker's report of its services.
type discovery struct {
	names   []string // listed by its reflection
	answers bool     // GetStatus of the DefaultService; only queried if that is assumed
	err     error    // UNIMPLEMENTED: it has no reflection; any other error: retry
}

// newRoutes returns the routes of a worker whose previous instance has reported the offers told.
func newRoutes(
	registry *services.Registry, worker string, unit *unit.Spec, told []records.Offer, log *slog.Logger,
) routes {
	return routes{registry: registry, worker: worker, unit: unit, log: log, offers: recalled(unit, told)}
}

// offer registers the offered services, whether the worker is ready or not. A retired worker offers none.
func (r *routes) offer(retired bool) {
	var names []string
	if !retired {
		names = namesOf(r.offers, func(o records.Offer) bool { return !o.Unlisted })
	}
	r.registry.Offer(services.OfWorker(r.worker), names...)
}

// admit makes ep the endpoint for requests.
func (r *routes) admit(ep *services.Endpoint, incarnation uint64) {
	r.endpoint, r.admitted = ep, incarnation
	crashpoint.Pass(crashpoint.Publish, func() { r.registry.Add(ep, r.served()...) })
}

// withdraw removes the endpoint; requests in flight continue.
func (r *routes) withdraw() {
	if r.endpoint == nil {
		return
	}
	crashpoint.Pass(crashpoint.Withdraw, func() { r.registry.Remove(r.endpoint) })
	r.endpoint = nil
}

// served returns the services that requests may be sent for. It excludes services that only an earlier instance has
// reported, and assumed ones that this instance has not shown to have.
func (r *routes) served() []string {
	return namesOf(r.offers, func(o records.Offer) bool {
		switch {
		case o.Unlisted:
			return false
		case o.Assumed:
			return r.confirmed || r.asked.answers
		}
		return !o.Reflected || r.confirmed
	})
}

// forget marks the offers as those of an earlier instance.
func (r *routes) forget() { r.confirmed, r.asked.answers = false, false }

// ask reports whether the worker is to be asked for its services now, and if so, counts the query.
func (r *routes) ask(incarnation uint64) bool {
	if r.unit.NoServices || r.endpoint == nil {
		return false
	}
	if r.asked.incarnation != incarnation {
		r.asked.incarnation, r.asked.tries, r.asked.pending = incarnation, 0, false
	}
	if r.asked.pending || r.asked.tries >= DiscoveryTries {
		return false
	}
	r.asked.tries++
	r.asked.pending = true
	return true
}

// learn applies the worker's report and reports whether its offers have changed.
func (r *routes) learn(d discovery) bool {
	r.asked.answers = d.answers
	denied := func(string) bool { return r.unit.Assumed && !d.answers }
	switch {
	case d.err == nil:
		return r.confirm(d.names, func(name string) bool { return !slices.Contains(d.names, name) })
	case status.Code(d.err) == codes.Unimplemented: // it has no reflection
		return r.confirm(nil, denied)
	case r.asked.tries >= DiscoveryTries && !r.confirmed:
		// This instance may offer a service that the previous one denied.
		return r.replace(offersOf(r.unit, Reflected(r.offers), denied))
	}
	r.log.Debug("worker services not discovered", "error", fmt.Sprintf("%.200q", d.err.Error()))
	return false // the next tick asks again
}

// confirm replaces the offers by those that the instance has listed.
func (r *routes) confirm(listed []string, unlisted func(string) bool) bool {
	r.asked.tries = DiscoveryTries
	r.confirmed = true
	names := routable(slices.Clone(listed))
	if most := unit.MaxServices - len(r.unit.Services); len(names) > most {
		r.log.Warn("worker services truncated", "offered", len(names), "max", most)
		names = names[:most]
	}
	return r.replace(offersOf(r.unit, names, unlisted))
}

// replace sets the offers and reports whether they have changed.
func (r *routes) replace(offers []records.Offer) bool {
	if slices.Equal(offers, r.offers) {
		return false
	}
	r.offers = offers
	r.log.Info("worker services changed", "services", strings.Join(Reflected(offers), " "))
	for _, o := range offers {
		if o.Unlisted && !o.Assumed {
			r.log.Warn("worker service not offered", "service", o.Name)
		}
	}
	return true
}

// update publishes the services that the endpoint serves now. before are those that it has served until now.
func (r *routes) update(before []string) {
	after := r.served()
	if r.endpoint == nil || slices.Equal(before, after) {
		return
	}
	crashpoint.Pass(crashpoint.Told, func() {
		r.registry.Add(r.endpoint, after...)
		r.registry.Withdraw(r.endpoint, slices.DeleteFunc(before, func(name string) bool {
			return slices.Contains(after, name)
		})...)
	})
}

func namesOf(offers []records.Offer, which func(records.Offer) bool) []string {
	var names []string
	for _, o := range offers {
		if which(o) {
			names = append(names, o.Name)
		}
	}
	return names
}

// offersOf returns the services that a unit is configured to offer and those reported by reflection. unlisted
// reports whether reflection has shown a configured service to be missing.
func offersOf(unit *unit.Spec, reflected []string, unlisted func(name string) bool) []records.Offer {
	var list []records.Offer
	for _, name := range unit.Services {
		list = append(
			list, records.Offer{Name: name, Unlisted: unit.NoServices || unlisted(name), Assumed: unit.Assumed},
		)
	}
	switch {
	case unit.NoServices:
		return list // the default service, marked unlisted: an empty list would mean the default
	case unit.NoOthers:
		return list
	}
	for _, name := range reflected {
		if !slices.ContainsFunc(list, func(o records.Offer) bool { return o.Name == name }) {
			list = append(list, records.Offer{Name: name, Reflected: true})
		}
	}
	slices.SortFunc(list, func(a, b records.Offer) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// recalled returns the offers of a unit whose previous instance has reported these.
func recalled(unit *unit.Spec, told []records.Offer) []records.Offer {
	return offersOf(unit, Reflected(told), func(name string) bool {
		return slices.ContainsFunc(told, func(o records.Offer) bool { return o.Name == name && o.Unlisted })
	})
}

// Reflected returns the names that only reflection has reported.
func Reflected(offers []records.Offer) []string {
	return namesOf(offers, func(o records.Offer) bool { return o.Reflected && services.CheckName(o.Name) == nil })
}
