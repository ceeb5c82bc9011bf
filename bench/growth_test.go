package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestGrowth(t *testing.T) {
	sizes := []int{10, 100, 1000}
	power := func(exponent float64) []series {
		var values []series
		for _, n := range sizes {
			v := math.Pow(float64(n), exponent)
			values = append(values, series{v, v * 0.5, v * 2})
		}
		return values
	}
	for _, test := range []struct {
		exponent float64
		faster   bool
		verdict  string
	}{
		{0, false, verdictFloor},
		{1, false, verdictFloor},
		{1.2, true, verdictShort},
		{2, true, verdictShort},
	} {
		r := newGrowth(rowGrowthRSS, sizes, power(test.exponent))
		for _, e := range r.growth.exponents() {
			if math.Abs(e-test.exponent) > 1e-9 {
				t.Errorf("exponents of n^%v = %v", test.exponent, r.growth.exponents())
			}
		}
		if got := r.growth.faster(); got != test.faster {
			t.Errorf("n^%v is faster than n: %t, want %t", test.exponent, got, test.faster)
		}
		if got := r.verdict(); got != test.verdict {
			t.Errorf("verdict on n^%v = %q, want %q", test.exponent, got, test.verdict)
		}
	}
	if got := newGrowth(rowGrowthRSS, sizes, power(1)).growth.slope(); math.Abs(got-1) > 1e-9 {
		t.Errorf("slope of n = %v, want 1", got)
	}
}

func TestGrowthTable(t *testing.T) {
	r := sample()
	r.Rows = append(r.Rows, newGrowth(rowGrowthFiles, []int{10, 100, 1000}, []series{{45}, {405}, {40005}}))
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"FIGURE", "10 WORKERS", "100 WORKERS", "1000 WORKERS", "A WORKER MORE", "EXPONENTS", "GROWS"},
		{"descriptors of the master", "45", "405", "40005", "40.36", "0.95", "1.99", "FASTER"},
	} {
		found := false
		for line := range strings.Lines(out.String()) {
			found = found || containsInOrder(line, want)
		}
		if !found {
			t.Errorf("no line has %q:\n%s", want, out.String())
		}
	}
	text, err := json.Marshal(r.Rows[len(r.Rows)-1])
	if err != nil {
		t.Fatal(err)
	}
	if want := `"growth":{"workers":[10,100,1000],"medians":[45,405,40005],"per_worker":`; !strings.Contains(
		string(text), want) {
		t.Errorf("the row is %s, want it to have %s", text, want)
	}
}

func containsInOrder(line string, parts []string) bool {
	for _, part := range parts {
		_, after, found := strings.Cut(line, part)
		if !found {
			return false
		}
		line = after
	}
	return true
}

// A figure that is too small to be measured can be 0. Then the report is still valid JSON, and nothing is said to grow.
func TestGrowthFromNothing(t *testing.T) {
	r := newGrowth(rowGrowthScrape, []int{10, 100, 1000}, []series{{0, 0}, {0, 0}, {1, 2}})
	if r.growth.faster() {
		t.Errorf("it grows faster than the number, with exponents %v", r.growth.exponents())
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"exponents":[null,null]`; !strings.Contains(string(text), want) {
		t.Errorf("the row is %s, want it to have %s", text, want)
	}
}

func TestTimes(t *testing.T) {
	r := sample()
	r.Parts = []part{{"durable calls", 7, 43.21}, {"growth", 2, 150}}
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n  43.2 s  7  durable calls\n", "\n 150.0 s  2  growth\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the times lack %q:\n%s", want, out.String())
		}
	}
}
