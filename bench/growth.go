package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
)

// fasterThan is the exponent from which a figure is marked: with 1 it grows as the number of workers does.
const fasterThan = 1.1

// growth is how a figure grows with the number of workers.
type growth struct {
	workers []int
	medians series // for each number
}

// newGrowth returns the row of a figure that was measured with several numbers of workers: its value a worker with the
// most of them, against that with a tenth or so.
func newGrowth(key string, workers []int, values []series) row {
	last := len(workers) - 1
	r := newRow(key, values[last].each(workers[last]), values[1].each(workers[1]))
	r.growth = &growth{workers: workers}
	for _, v := range values {
		r.growth.medians = append(r.growth.medians, v.median())
	}
	return r
}

// slope returns the increase per worker, between the least and the most workers.
func (g *growth) slope() float64 {
	last := len(g.workers) - 1
	return (g.medians[last] - g.medians[0]) / float64(g.workers[last]-g.workers[0])
}

// exponents returns, from each number of workers to the next, the power of it with which the figure grows. It is no
// finite number if the figure was 0.
func (g *growth) exponents() series {
	var s series
	for i := range len(g.workers) - 1 {
		s = append(s, math.Log(g.medians[i+1]/g.medians[i])/math.Log(float64(g.workers[i+1])/float64(g.workers[i])))
	}
	return s
}

// faster reports whether the figure grows faster than the number of workers.
func (g *growth) faster() bool {
	for _, e := range g.exponents() {
		if e > fasterThan && finite(e) {
			return true
		}
	}
	return false
}

// MarshalJSON returns the growth in the format of bench.json.
func (g *growth) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Workers   []int   `json:"workers"`
		Medians   series  `json:"medians"`
		PerWorker float64 `json:"per_worker"`
		Exponents series  `json:"exponents"`
		Faster    bool    `json:"faster"`
	}{g.workers, g.medians, g.slope(), g.exponents(), g.faster()})
}

const growthLegend = `
Growth with the number of workers. The exponent from one number to the next is 1 if the figure grows as the number
does, 2 if it grows with its square.

`

// printGrowth writes the table of the figures that grow, if there are some.
func printGrowth(out *bufio.Writer, rows []row) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	headed := false
	for _, r := range rows {
		if r.growth == nil {
			continue
		}
		if !headed {
			headed = true
			fmt.Fprint(out, growthLegend)
			heads := []string{"FIGURE"}
			for _, n := range r.growth.workers {
				heads = append(heads, fmt.Sprintf("%d WORKERS", n))
			}
			fmt.Fprintln(table, strings.Join(append(heads, "A WORKER MORE", "EXPONENTS", "GROWS"), "\t"))
		}
		fmt.Fprintln(table, strings.Join(r.growth.cells(r.figure), "\t"))
	}
	return table.Flush()
}

func (g *growth) cells(f figure) []string {
	cells := []string{f.what}
	for _, v := range g.medians {
		cells = append(cells, format(f.unit, v))
	}
	var exponents []string
	for _, e := range g.exponents() {
		text := "-"
		if finite(e) {
			text = fmt.Sprintf("%.2f", e)
		}
		exponents = append(exponents, text)
	}
	grows := "as the number or slower"
	if g.faster() {
		grows = "FASTER than the number"
	}
	return append(cells, format(f.unit, g.slope()), strings.Join(exponents, " "), grows)
}
