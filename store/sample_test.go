package store

import (
	"os"
	"strconv"
	"testing"
)

// pick returns how many of the possible cases a test tries. By default it is a sample, so that all tests take a
// minute; with EXHAUSTIVE=1 ("make exhaustive") it is every case; with EXHAUSTIVE=full it is as many combinations
// of cases as fit into hours.
func pick[T any](t testing.TB, sample, each, full T) T {
	t.Helper()
	switch extent := os.Getenv("EXHAUSTIVE"); extent {
	case "":
		return sample
	case "1":
		return each
	case "full":
		return full
	default:
		t.Fatalf("EXHAUSTIVE=%s: want 1, full, or nothing", extent)
		panic("unreachable")
	}
}

// seedOf returns SEED, which selects the cases of a sample.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv("SEED")
	if text == "" {
		return 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEED=%s: %v", text, err)
	}
	return seed
}
