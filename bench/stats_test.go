package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		s    series
		want float64
	}{
		{series{3}, 3},
		{series{9, 1, 5}, 5},
		{series{4, 1, 3, 2}, 2.5},
		{series{2, 2, 100, 2}, 2},
	} {
		before := slices.Clone(test.s)
		if got := test.s.median(); got != test.want {
			t.Errorf("median of %v = %v, want %v", test.s, got, test.want)
		}
		if !slices.Equal(test.s, before) {
			t.Errorf("median changed the order of the rounds: %v, want %v", test.s, before)
		}
	}
	if got := (series{}).median(); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v, want NaN", got)
	}
}

func TestSpread(t *testing.T) {
	if least, most := (series{2, 0.5, 7}).spread(); least != 0.5 || most != 7 {
		t.Errorf("spread = %v to %v, want 0.5 to 7", least, most)
	}
	if least, most := (series{}).spread(); !math.IsNaN(least) || !math.IsNaN(most) {
		t.Errorf("spread of nothing = %v to %v, want NaN", least, most)
	}
}

// The median of the ratios is not the ratio of the medians: a slow round is slow for both sides.
func TestRatiosAreOfEachRound(t *testing.T) {
	product, baseline := series{80, 8, 90}, series{100, 10, 100}
	ratios := product.over(baseline)
	if want := (series{0.8, 0.8, 0.9}); !slices.Equal(ratios, want) {
		t.Errorf("ratios = %v, want %v", ratios, want)
	}
	if got := ratios.median(); got != 0.8 {
		t.Errorf("median ratio = %v, want 0.8", got)
	}
	if got, want := (series{1, 2}).plus(series{10, 20}), (series{11, 22}); !slices.Equal(got, want) {
		t.Errorf("sum = %v, want %v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, test := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{1, 2, 3}, 0.5, 2},
		{[]time.Duration{1, 2, 3, 4}, 0.5, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	} {
		if got := quantile(test.sorted, test.q); got != test.want {
			t.Errorf("quantile %v of %d values = %d, want %d", test.q, len(test.sorted), got, test.want)
		}
	}
}

func TestTurns(t *testing.T) {
	for _, test := range []struct {
		sides, round int
		want         []int
	}{
		{2, 0, []int{0, 1, 1, 0}},
		{2, 1, []int{1, 0, 0, 1}},
		{2, 2, []int{0, 1, 1, 0}},
		{3, 0, []int{0, 1, 2, 2, 1, 0}},
		{3, 1, []int{1, 2, 0, 0, 2, 1}},
	} {
		if got := turns(test.sides, test.round); !slices.Equal(got, test.want) {
			t.Errorf("turns of %d sides in round %d = %v, want %v", test.sides, test.round, got, test.want)
		}
	}
}
