package services

import (
	"fmt"
	"testing"
	"time"
)

// of makes members whose address is their index.
func of(standings ...standing) []*member {
	var ms []*member
	for i, s := range standings {
		ms = append(ms, &member{ep: &Endpoint{Address: fmt.Sprint(i)}, standing: s})
	}
	return ms
}

func TestPick(t *testing.T) {
	const now = time.Hour
	type list = []standing
	for name, test := range map[string]struct {
		balance Balance
		ready   list
		tried   []int
		want    string // address, "" for none
	}{
		"nobody": {
			LeastInFlight, nil, nil, "",
		},
		"the idlest": {
			LeastInFlight, list{{inFlight: 3}, {inFlight: 1}, {inFlight: 2}}, nil, "1",
		},
		"among equals whose turn it is": {
			LeastInFlight, list{{inFlight: 1, turn: 2}, {inFlight: 1, turn: 1}, {inFlight: 2}}, nil, "1",
		},
		"not one that was tried": {
			LeastInFlight, list{{inFlight: 3}, {inFlight: 1}}, []int{1}, "0",
		},
		"not one that is ejected": {
			LeastInFlight, list{{inFlight: 3}, {inFlight: 1, ejectedUntil: now + 1}}, nil, "0",
		},
		"one that was ejected": {
			LeastInFlight, list{{inFlight: 3}, {inFlight: 1, ejectedUntil: now}}, nil, "1",
		},
		"all tried": {
			LeastInFlight, list{{}, {}}, []int{0, 1}, "",
		},
		"a fresh one has a tenth": {
			LeastInFlight, list{{inFlight: 9}, {inFlight: 1, warmAt: now + slowStart}}, nil, "0",
		},
		"a fresh one has a tenth, exceeded": {
			LeastInFlight, list{{inFlight: 11}, {inFlight: 1, warmAt: now + slowStart}}, nil, "1",
		},
		"half warm": {
			LeastInFlight, list{{inFlight: 3}, {inFlight: 1, warmAt: now + slowStart/2}}, nil, "1",
		},
		"by turn": {
			RoundRobin, list{{turn: 2}, {turn: 1, inFlight: 100}, {turn: 3}}, nil, "1",
		},
		"by turn, not one that was tried": {
			RoundRobin, list{{turn: 2}, {turn: 1}, {turn: 3}}, []int{1}, "0",
		},
		"by turn, not one that is ejected": {
			RoundRobin, list{{turn: 2}, {turn: 1, ejectedUntil: now + 1}}, nil, "0",
		},
		"by turn, all tried": {
			RoundRobin, list{{}}, []int{0}, "",
		},
	} {
		ready := of(test.ready...)
		q := question{now: now}
		for _, i := range test.tried {
			q.tried = append(q.tried, ready[i].ep)
		}
		got := ""
		if m := q.pick(test.balance, ready); m != nil {
			got = m.ep.Address
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestWeight(t *testing.T) {
	m := standing{warmAt: slowStart}
	for now, want := range map[time.Duration]float64{
		0: leastWeight, slowStart / 20: leastWeight, slowStart / 2: 0.5,
		slowStart - 1: 1 - 1e-10, slowStart: 1, time.Hour: 1,
	} {
		if got := m.weight(now); got < want-1e-6 || got > want+1e-6 {
			t.Errorf("weight at %v is %v, want %v", now, got, want)
		}
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	_, s, _ := withEndpoints(4, Policy{Balance: RoundRobin})
	var order []*Endpoint
	for i := range 40 {
		l := lease(t, s, "")
		order = append(order, l.Endpoint())
		if i >= 4 && order[i] != order[i-4] {
			t.Fatalf("call %d went to %s, want it in turn", i, order[i].Worker)
		}
		if i%3 == 0 {
			l.End(Outcome{})
		}
	}
}

func TestLeastInFlightIsFairAmongEquals(t *testing.T) {
	_, s, _ := withEndpoints(4)
	for range 400 {
		lease(t, s, "").End(Outcome{})
	}
	for _, ep := range s.Info().Endpoints {
		if ep.Calls != 100 {
			t.Errorf("%s got %d of 400, want 100", ep.Worker, ep.Calls)
		}
	}
}

func affine(n int) (*Registry, *Service, []*Endpoint) {
	return withEndpoints(n, Policy{Balance: Affinity, Affinity: "k"})
}

func TestAffinityKeepsAKeyWhereItIs(t *testing.T) {
	r, s, eps := affine(10)
	place := func(key string) string {
		l := lease(t, s, key)
		defer l.End(Outcome{})
		return l.Endpoint().Worker
	}
	home := map[string]string{}
	had := map[string]int{}
	for i := range 1000 {
		key := fmt.Sprint("key", i)
		home[key] = place(key)
		had[home[key]]++
	}
	for w, n := range had {
		if n < 60 || n > 150 {
			t.Errorf("%s has %d of 1000 keys, want about 100", w, n)
		}
	}
	r.Remove(eps[3])
	for key, was := range home {
		if now := place(key); now == was == (was == "worker-3") {
			t.Fatalf("%s moved from %s to %s when worker-3 went", key, was, now)
		}
	}
	// The worker is restarted at another address.
	r.Add(&Endpoint{Address: "127.0.0.1:1", Worker: "worker-3", Warm: true}, echo)
	for key, was := range home {
		if now := place(key); now != was {
			t.Fatalf("%s is at %s, want it back at %s", key, now, was)
		}
	}
}

func TestAffinityIsTheSameInEachRun(t *testing.T) {
	_, s, _ := affine(5)
	got := ""
	for _, key := range []string{"", "a", "b", "c", "session-1", "session-2"} {
		l := lease(t, s, key)
		if key != "" {
			got += l.Endpoint().Worker + " "
		}
		l.End(Outcome{})
	}
	if want := "worker-4 worker-4 worker-2 worker-3 worker-3 "; got != want {
		t.Errorf("keys are at %s, want %s: else each release tears sessions apart", got, want)
	}
}

func TestAffinityBoundsTheLoad(t *testing.T) {
	_, s, _ := affine(4)
	for range 400 {
		lease(t, s, "one key for all")
	}
	most := 0
	for _, ep := range s.Info().Endpoints {
		most = max(most, ep.InFlight)
	}
	if most > 126 {
		t.Errorf("one endpoint has %d of 400 calls, want 1.25 times the average at most", most)
	}
}

func TestAffinityHoldsForAFewCallsAtATime(t *testing.T) {
	_, s, _ := affine(8)
	at := map[*Endpoint]int{}
	for range fewCalls {
		at[lease(t, s, "session").Endpoint()]++
	}
	if len(at) != 1 {
		t.Errorf("%d calls of one session are at %d endpoints of an idle service", fewCalls, len(at))
	}
}

func TestCallWithoutAKeyGoesWhereTheFewestAre(t *testing.T) {
	_, s, _ := affine(4)
	for range 8 {
		lease(t, s, "")
	}
	for _, ep := range s.Info().Endpoints {
		if ep.InFlight != 2 {
			t.Errorf("%s has %d of 8 calls, want 2", ep.Worker, ep.InFlight)
		}
	}
}
