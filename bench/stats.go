package main

import (
	"encoding/json"
	"math"
	"slices"
	"time"
)

// series holds one value for each round, in base units: seconds, bytes, requests per second.
type series []float64

// MarshalJSON returns the values as numbers.
func (s series) MarshalJSON() ([]byte, error) {
	values := make([]jsonNumber, len(s))
	for i, v := range s {
		values[i] = jsonNumber(v)
	}
	return json.Marshal(values)
}

// jsonNumber is a value in JSON, null if it is not finite: JSON does not have such numbers.
type jsonNumber float64

// MarshalJSON returns the number or null.
func (n jsonNumber) MarshalJSON() ([]byte, error) {
	if !finite(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// median returns the middle value, or the mean of the two in the middle; NaN if there are no values.
func (s series) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// spread returns the smallest and the largest value, NaN if there are no values.
func (s series) spread() (least, most float64) {
	if len(s) == 0 {
		return math.NaN(), math.NaN()
	}
	return slices.Min(s), slices.Max(s)
}

// over returns the quotient of each round. A disturbance of the machine affects both sides of a round, so quotients
// vary less than values.
func (s series) over(baseline series) series {
	quotients := make(series, min(len(s), len(baseline)))
	for i := range quotients {
		quotients[i] = s[i] / baseline[i]
	}
	return quotients
}

// plus adds two series round by round.
func (s series) plus(other series) series {
	sums := make(series, min(len(s), len(other)))
	for i := range sums {
		sums[i] = s[i] + other[i]
	}
	return sums
}

// each returns the values divided by n.
func (s series) each(n int) series {
	quotients := make(series, len(s))
	for i, v := range s {
		quotients[i] = v / float64(n)
	}
	return quotients
}

// quantile returns the smallest of the sorted values such that at least the share q of all values does not exceed
// it (nearest rank); 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// turns returns the order in which the sides of one round take their turns: each twice, mirrored (A B C C B A), so
// that a drift of the machine within the round affects all equally, and beginning with another side in each round.
func turns(sides, round int) []int {
	order := make([]int, 0, 2*sides)
	for i := range sides {
		order = append(order, (round+i)%sides)
	}
	for i := range sides {
		order = append(order, order[sides-1-i])
	}
	return order
}
