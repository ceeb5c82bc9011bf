package services

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
)

const echo = "pkg.Echo"

// registry returns a registry with the same random numbers in each run.
func registry(policies ...Policy) *Registry {
	o := Options{Rand: rand.New(rand.NewPCG(1, 2))}
	if len(policies) > 0 {
		o.Policies = map[string]Policy{echo: policies[0]}
	}
	return New(o)
}

// withEndpoints returns a registry with n warm endpoints under echo.
func withEndpoints(n int, policies ...Policy) (*Registry, *Service, []*Endpoint) {
	r := registry(policies...)
	var eps []*Endpoint
	for i := range n {
		ep := &Endpoint{Address: fmt.Sprintf("127.0.0.1:%d", 40000+i), Worker: fmt.Sprintf("worker-%d", i), Warm: true}
		eps = append(eps, ep)
		r.Add(ep, echo)
	}
	return r, r.Service(echo), eps
}

func lease(t *testing.T, s *Service, key string, tried ...*Endpoint) Pick {
	t.Helper()
	l, err := s.Pick(fair.Client{}, key, tried...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fail makes a call at the endpoint fail by the endpoint's fault; all other endpoints count as tried.
func fail(t *testing.T, s *Service, at *Endpoint, all []*Endpoint) {
	t.Helper()
	var others []*Endpoint
	for _, ep := range all {
		if ep != at {
			others = append(others, ep)
		}
	}
	lease(t, s, "", others...).End(Outcome{Code: 14, Failed: true})
}

func TestServiceIsThereWhileSomebodyOffersIt(t *testing.T) {
	r := registry()
	if r.Service(echo) != nil {
		t.Fatal("there is a service that nobody offers")
	}
	r.Offer("worker-0", echo)
	s := r.Service(echo)
	if s == nil || s.Name() != echo {
		t.Fatalf("service is %v", s)
	}
	if _, err := s.Pick(fair.Client{}, ""); !errors.Is(err, ErrNotReady) {
		t.Errorf("without an endpoint: %v, want ErrNotReady", err)
	}
	ep := &Endpoint{Address: "127.0.0.1:1"}
	r.Add(ep, echo, "pkg.Other")
	r.Offer("worker-0")
	if r.Service(echo) != s {
		t.Error("another service while an endpoint offers it")
	}
	l := lease(t, s, "")
	r.Withdraw(ep, "pkg.Other")
	if r.Service("pkg.Other") != nil {
		t.Error("a service is there that its only endpoint was withdrawn from")
	}
	r.Remove(ep)
	if r.Service(echo) != nil {
		t.Error("a service is there whose only endpoint was removed")
	}
	if _, err := s.Pick(fair.Client{}, ""); !errors.Is(err, ErrHopeless) {
		t.Errorf("what nobody offers any more: %v, want ErrHopeless", err)
	}
	l.End(Outcome{})
}

func TestRemovedEndpointDrainsOverAllItsServices(t *testing.T) {
	r, s, eps := withEndpoints(2)
	r.Add(eps[0], "pkg.Other")
	one := lease(t, s, "", eps[1])
	two := lease(t, r.Service("pkg.Other"), "")
	drained := eps[0].Drained()
	if eps[0].Gone() || closed(drained) {
		t.Fatal("it is gone before it is removed")
	}
	r.Remove(eps[0])
	if !eps[0].Gone() || closed(drained) {
		t.Error("removed, with calls under way: want it removed and not drained")
	}
	for range 10 {
		l := lease(t, s, "")
		if l.Endpoint() == eps[0] {
			t.Fatal("it gets a call after it was removed")
		}
		l.End(Outcome{})
	}
	one.End(Outcome{})
	if closed(drained) {
		t.Error("drained with a call of its other service under way")
	}
	two.End(Outcome{})
	if !closed(drained) || !closed(eps[0].Drained()) {
		t.Error("not drained after the last call")
	}
	r.Remove(eps[1])
	if !closed(eps[1].Drained()) {
		t.Error("one without calls does not drain")
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLimitOfCallsInFlight(t *testing.T) {
	_, s, _ := withEndpoints(2, Policy{MaxInFlight: 2})
	one, two := lease(t, s, ""), lease(t, s, "")
	if _, err := s.Pick(fair.Client{}, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v, want ErrBusy", err)
	}
	one.End(Outcome{})
	lease(t, s, "").End(Outcome{})
	two.End(Outcome{})
}

func TestTriedEndpointIsNotGivenAgain(t *testing.T) {
	for _, b := range []Policy{{Balance: LeastInFlight}, {Balance: RoundRobin}, {Balance: Affinity, Affinity: "k"}} {
		_, s, eps := withEndpoints(3, b)
		for range 20 {
			l := lease(t, s, "key", eps[0], eps[2])
			if l.Endpoint() != eps[1] {
				t.Fatalf("%s gives one that was tried", b.Balance)
			}
			l.End(Outcome{})
		}
		if _, err := s.Pick(fair.Client{}, "key", eps...); !errors.Is(err, ErrNotReady) {
			t.Errorf("%s, all tried: %v, want ErrNotReady", b.Balance, err)
		}
	}
}

func TestEjectedEndpointReturnsAfterATimeThatGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, eps := withEndpoints(4)
		out := func(ep *Endpoint) bool {
			for range 40 {
				l := lease(t, s, "")
				l.End(Outcome{})
				if l.Endpoint() == ep {
					return false
				}
			}
			return true
		}
		for round := 1; round <= 3; round++ {
			for range ejectAfter - 1 {
				fail(t, s, eps[0], eps)
			}
			if out(eps[0]) {
				t.Fatalf("round %d: ejected one failure too early", round)
			}
			// A call has succeeded meanwhile, so the count starts at 0 again.
			for range ejectAfter {
				fail(t, s, eps[0], eps)
			}
			if !out(eps[0]) {
				t.Fatalf("round %d: not ejected", round)
			}
			whole := time.Duration(round) * ejectFor
			if left := s.Info().Endpoints[0].EjectedFor; left != whole {
				t.Errorf("round %d: said to be out for %s, want %s", round, left, whole)
			}
			time.Sleep(whole - time.Millisecond)
			if !out(eps[0]) {
				t.Errorf("round %d: back too early", round)
			}
			time.Sleep(time.Millisecond)
			if out(eps[0]) {
				t.Errorf("round %d: not back", round)
			}
			if left := s.Info().Endpoints[0].EjectedFor; left != 0 {
				t.Errorf("round %d: back, and said to be out for %s", round, left)
			}
		}
		// After some time without failures the ejections are forgotten.
		time.Sleep(3 * forgiveAfter)
		for range ejectAfter {
			fail(t, s, eps[0], eps)
		}
		time.Sleep(ejectFor)
		if out(eps[0]) {
			t.Error("not back after the first time, though the earlier ones are long past")
		}
		if n := s.Figures("worker-0").Ejections; n != 4 {
			t.Errorf("%d ejections counted, want 4", n)
		}
	})
}

func TestNoMoreThanHalfIsEjected(t *testing.T) {
	for n, want := range []int{0, 0, 1, 1, 2, 2} {
		if n == 0 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			_, s, eps := withEndpoints(n)
			for _, ep := range eps {
				for range 2 * ejectAfter {
					fail(t, s, ep, eps)
				}
			}
			got := 0
			for _, ep := range s.Info().Endpoints {
				if ep.EjectedFor > 0 {
					got++
				}
			}
			if got != want {
				t.Errorf("%d of %d ejected, want %d", got, n, want)
			}
		})
	}
}

// An ejected endpoint is better than none.
func TestEjectedEndpointIsGivenWhereThereIsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, eps := withEndpoints(2)
		for range ejectAfter {
			fail(t, s, eps[0], eps)
		}
		r.Remove(eps[1])
		l := lease(t, s, "")
		if l.Endpoint() != eps[0] {
			t.Errorf("got %v", l.Endpoint())
		}
		l.End(Outcome{})
	})
}

// A call that was given up proves nothing: the endpoint may hang.
func TestWhatWasGivenUpIsNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for code, ejected := range map[uint32]bool{1: true, 4: true, 0: false, 5: false} {
			_, s, eps := withEndpoints(2)
			for range ejectAfter - 1 {
				fail(t, s, eps[0], eps)
			}
			lease(t, s, "", eps[1]).End(Outcome{Code: code})
			fail(t, s, eps[0], eps)
			if got := s.Info().Endpoints[0].EjectedFor > 0; got != ejected {
				t.Errorf("with code %d between failures: ejected %t, want %t", code, got, ejected)
			}
		}
	})
}

func TestFreshEndpointBeginsSlowly(t *testing.T) {
	for _, b := range []Balance{LeastInFlight, RoundRobin} {
		synctest.Test(t, func(t *testing.T) {
			r, s, _ := withEndpoints(3, Policy{Balance: b})
			share := func() int {
				n := 0
				for range 400 {
					l := lease(t, s, "")
					if l.Endpoint().Worker == "fresh" {
						n++
					}
					l.End(Outcome{})
				}
				return n
			}
			r.Add(&Endpoint{Address: "127.0.0.1:1", Worker: "fresh"}, echo)
			first := share()
			time.Sleep(slowStart / 2)
			half := share()
			time.Sleep(slowStart / 2)
			whole := share()
			if first < 5 || first > 25 || half < 40 || half > 70 || whole < 98 || whole > 102 {
				t.Errorf("%s: of 400 calls it got %d, %d, %d, want about 13, 57, 100", b, first, half, whole)
			}
		})
	}
}

func TestFreshEndpointIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, _ := withEndpoints(3)
		fresh := &Endpoint{Address: "127.0.0.1:1", Worker: "fresh"}
		r.Add(fresh, echo)
		for range 60 {
			lease(t, s, "")
		}
		if n := s.Figures("fresh").InFlight; n < 1 || n > 3 {
			t.Errorf("a fresh endpoint has %d of 60 calls, want about 2", n)
		}
	})
}

func TestFiguresOutliveTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, eps := withEndpoints(1)
		r.Offer("worker-0", echo)
		l := lease(t, s, "")
		time.Sleep(40 * time.Microsecond)
		l.End(Outcome{Code: 5})
		l = lease(t, s, "")
		time.Sleep(time.Hour)
		l.End(Outcome{Code: 14, Failed: true, Retried: true})
		open := lease(t, s, "")
		r.Remove(eps[0])
		want := Figures{Calls: 2, InFlight: 1, Retries: 1}
		want.Failures[5], want.Failures[14] = 1, 1
		want.Latency.Sum = time.Hour + 40*time.Microsecond
		want.Latency.Counts[1], want.Latency.Counts[buckets-1] = 1, 1
		if got := s.Figures("worker-0"); got != want {
			t.Errorf("figures are %+v, want %+v", got, want)
		}
		if info := s.Info(); len(info.Endpoints) != 0 || info.Gone["worker-0"] != want || info.Past != (Figures{}) {
			t.Errorf("after it is gone: %+v", info)
		}
		open.End(Outcome{Code: 99})
		r.Add(&Endpoint{Address: "127.0.0.1:2", Worker: "worker-0"}, echo)
		lease(t, s, "").End(Outcome{})
		got := s.Info()
		if len(got.Endpoints) != 1 || got.Endpoints[0].Calls != 4 ||
			got.Endpoints[0].Failures[unknownCode] != 1 || len(got.Gone) != 0 {
			t.Errorf("the next one of the worker counts on as %+v", got)
		}
		if n := got.Endpoints[0].Failed(); n != 3 {
			t.Errorf("%d failures, want 3", n)
		}
	})
}

// A call that its endpoint cannot have seen does not count as one of the endpoint's calls, but is a failure that
// may eject it.
func TestUnseenCallsAreNotCounted(t *testing.T) {
	_, s, eps := withEndpoints(2)
	for s.Figures("worker-0").Ejections == 0 {
		l := lease(t, s, "", eps[1])
		l.End(Outcome{Code: 14, Failed: true, Retried: true, Unseen: true})
	}
	if got := s.Figures("worker-0"); got != (Figures{Ejections: 1}) {
		t.Errorf("figures are %+v, want no calls", got)
	}
	// A call that was given up before it was sent does not prove that the endpoint is alive.
	for range ejectAfter - 1 {
		lease(t, s, "", eps[0]).End(Outcome{Code: 14, Failed: true})
		lease(t, s, "", eps[0]).End(Outcome{Code: 14, Unseen: true})
	}
	if n := s.members[1].failures; n != ejectAfter-1 {
		t.Errorf("%d failures in a row, want %d", n, ejectAfter-1)
	}
}

// Each call counts once for the budget, however often it is tried, and only retries use it up.
func TestRetryBudgetOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, _ := withEndpoints(1)
		for range 100 {
			lease(t, s, "").End(Outcome{Code: 14, Failed: true, Retried: true, Unseen: true})
			lease(t, s, "").End(Outcome{Code: 14, Retried: true})
			lease(t, s, "").End(Outcome{})
		}
		retries := 0
		for s.Retry() {
			retries++
		}
		if want := 100*retryShare + retryLeast; retries != int(want) {
			t.Errorf("%d second tries for 100 calls, want %v", retries, want)
		}
	})
}

func TestBuckets(t *testing.T) {
	bounds := Bounds()
	for i, bound := range bounds {
		if bucketOf(bound) != i || bucketOf(bound+1) != i+1 {
			t.Errorf("bound %v is in bucket %d, what is longer in %d, want %d and %d",
				bound, bucketOf(bound), bucketOf(bound+1), i, i+1)
		}
	}
	if bucketOf(0) != 0 || bucketOf(-1) != 0 || bucketOf(1<<62) != buckets-1 {
		t.Errorf("0 is in bucket %d, -1 in %d, what is endless in %d", bucketOf(0), bucketOf(-1), bucketOf(1<<62))
	}
}

// gone returns the sum of the figures of endpoints that are gone.
func gone(info ServiceInfo) Figures {
	all := info.Past
	for _, f := range info.Gone {
		all.Add(f)
	}
	return all
}

func TestKeptFiguresAreBounded(t *testing.T) {
	r := registry()
	r.Offer("somebody", echo)
	s := r.Service(echo)
	for i := range 2 * keepMost {
		ep := &Endpoint{Address: fmt.Sprintf("127.0.0.1:%d", i)}
		r.Add(ep, echo)
		lease(t, s, "").End(Outcome{Code: 14, Failed: true})
		r.Remove(ep)
	}
	if n := len(s.kept); n > keepMost {
		t.Errorf("%d kept, want %d at most", n, keepMost)
	}
	if all := gone(s.Info()); all.Calls != 2*keepMost || all.Failures[14] != 2*keepMost {
		t.Errorf("%+v, want %d calls", all, 2*keepMost)
	}
}

func TestWatchTellsOfEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, eps := withEndpoints(2)
		changed, stop := r.Watch()
		other := &Endpoint{Address: "127.0.0.1:1"}
		for _, step := range []struct {
			what   string
			change func()
		}{
			{"an endpoint comes", func() { r.AddIdle(other, echo) }},
			{"it gets ready", func() { r.SetReady(other, true) }},
			{"it goes", func() { r.Remove(other) }},
			{"a service is offered", func() { r.Offer("x", "pkg.X") }},
			{"something beside it changes", r.Changed},
			{"an endpoint is ejected", func() { failOften(t, s, eps) }},
			{"several changes, which share a token", func() { r.Offer("x"); r.Offer("x", "pkg.Y") }},
		} {
			step.change()
			if !taken(changed) {
				t.Errorf("%s: not told", step.what)
			}
			if taken(changed) {
				t.Errorf("%s: told twice", step.what)
			}
		}
		r.SetReady(eps[0], true) // it is ready already
		r.Offer("x", "pkg.Y")    // they are offered already
		if taken(changed) {
			t.Error("told of no change")
		}
		stop()
		r.Changed()
		if taken(changed) {
			t.Error("told after the stop")
		}
	})
}

func failOften(t *testing.T, s *Service, eps []*Endpoint) {
	for range ejectAfter {
		fail(t, s, eps[0], eps)
	}
}

func taken(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLeaseAndEndDoNotAllocate(t *testing.T) {
	for _, p := range []Policy{{}, {Balance: RoundRobin}, {Balance: Affinity, Affinity: "k"}} {
		_, s, eps := withEndpoints(10, p)
		if n := testing.AllocsPerRun(1000, func() {
			l, err := s.Pick(fair.Client{}, "some key")
			if err != nil {
				t.Fatal(err)
			}
			l.End(Outcome{})
			l, _ = s.Pick(fair.Client{}, "some key", eps[0])
			l.End(Outcome{Code: 5})
		}); n != 0 {
			t.Errorf("%s: %v allocations a call, want 0", p.Balance, n)
		}
	}
}

// While endpoints are added, removed, drained and failing, no lease is lost and none is on an endpoint that is
// gone.
func TestStorm(t *testing.T) {
	r, s, _ := withEndpoints(3)
	r.Offer("always", echo)
	end := make(chan struct{})
	var wg sync.WaitGroup
	var calls, broken atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			chance := rand.New(rand.NewPCG(uint64(i), 1))
			for !closed(end) {
				l, err := s.Pick(fair.Client{}, fmt.Sprint(chance.IntN(10)))
				if err != nil {
					wait := make(chan struct{})
					cancel, err := s.Wait(fair.Client{}, func(error) { close(wait) })
					if err != nil {
						t.Error(err)
						return
					}
					select {
					case <-wait:
					case <-end:
						if !cancel() {
							<-wait
						}
					}
					continue
				}
				if closed(l.Endpoint().Drained()) {
					broken.Add(1)
				}
				calls.Add(1)
				l.End(Outcome{Code: chance.Uint32N(20), Failed: chance.IntN(3) == 0})
			}
		})
	}
	wg.Go(func() {
		defer close(end)
		chance := rand.New(rand.NewPCG(7, 7))
		var mine []*Endpoint
		for i := range 500 {
			switch chance.IntN(4) {
			case 0:
				ep := &Endpoint{Address: fmt.Sprint("x:", i)}
				mine = append(mine, ep)
				r.AddIdle(ep, echo, "pkg.Other")
			case 1:
				if len(mine) > 0 {
					r.Remove(mine[0])
					<-mine[0].Drained()
					mine = mine[1:]
				}
			case 2:
				if len(mine) > 0 {
					r.SetReady(mine[chance.IntN(len(mine))], chance.IntN(2) == 0)
				}
			default:
				r.Snapshot()
				r.Reconsider()
			}
		}
		for _, ep := range mine {
			r.Remove(ep)
			<-ep.Drained()
		}
	})
	wg.Wait()
	info := s.Info()
	all := gone(info)
	for _, ep := range info.Endpoints {
		all.Add(ep.Figures)
	}
	var taken uint64
	for _, n := range all.Latency.Counts {
		taken += n
	}
	if broken.Load() > 0 || info.InFlight != 0 || all.InFlight != 0 || info.Waiting != 0 ||
		int64(all.Calls) != calls.Load() || taken != all.Calls {
		t.Errorf("%d calls at drained endpoints; after %d calls: %+v", broken.Load(), calls.Load(), info)
	}
	if r.Service("pkg.Other") != nil {
		t.Error("a service is left without an endpoint")
	}
}

func BenchmarkLease(b *testing.B) {
	for _, p := range []Policy{{Balance: LeastInFlight}, {Balance: RoundRobin}, {Balance: Affinity, Affinity: "k"}} {
		for _, n := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", p.Balance, n), func(b *testing.B) {
				_, s, _ := withEndpoints(n, p)
				b.ReportAllocs()
				for b.Loop() {
					l, _ := s.Pick(fair.Client{}, "some key")
					l.End(Outcome{})
				}
			})
		}
	}
}

func BenchmarkLeaseFromAllProcessors(b *testing.B) {
	_, s, _ := withEndpoints(10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, _ := s.Pick(fair.Client{}, "")
			l.End(Outcome{})
		}
	})
}

func BenchmarkFindService(b *testing.B) {
	r, _, _ := withEndpoints(10)
	name := []byte(echo)
	b.ReportAllocs()
	for b.Loop() {
		if r.Service(string(name)) == nil {
			b.Fatal("none")
		}
	}
}

// A counter that falls would look like that of a new master.
func TestServiceThatIsOfferedAgainCountsOn(t *testing.T) {
	r := New(Options{})
	call := func(then func(Pick)) {
		t.Helper()
		ep := &Endpoint{Address: "10.0.0.1:80"}
		r.Add(ep, "pkg.A")
		l, err := r.Service("pkg.A").Pick(fair.Client{}, "")
		if err != nil {
			t.Fatal(err)
		}
		then(l)
		r.Remove(ep)
	}
	var late Pick
	call(func(l Pick) { l.End(Outcome{Code: 5}) })
	call(func(l Pick) { late = l }) // ends when the service is no longer offered
	if r.Service("pkg.A") != nil {
		t.Fatal("the service is there that nobody offers")
	}
	late.End(Outcome{Code: 5})
	call(func(l Pick) { l.End(Outcome{}) })
	r.Offer("worker-0", "pkg.A")
	s := r.Service("pkg.A")
	if f := s.Figures("10.0.0.1:80"); f.Calls != 3 || f.Failures[5] != 2 || f.InFlight != 0 {
		t.Errorf("counted %d calls, %d of them failed, %d under way, want 3, 2, 0", f.Calls, f.Failures[5], f.InFlight)
	}
	if _, err := s.Pick(fair.Client{}, ""); !errors.Is(err, ErrNotReady) {
		t.Errorf("a call of a service that is back: %v, want ErrNotReady", err)
	}
	// The number of retired services is bounded.
	for i := range 2 * keepRetired {
		ep := &Endpoint{Address: "10.0.0.1:80"}
		r.Add(ep, fmt.Sprintf("pkg.S%d", i))
		r.Remove(ep)
	}
	if len(r.retired) != keepRetired {
		t.Errorf("%d services are kept that are gone, want %d", len(r.retired), keepRetired)
	}
}
