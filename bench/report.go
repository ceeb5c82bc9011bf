package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the result of a whole run.
type report struct {
	Started time.Time `json:"started"`
	Took    float64   `json:"took_s"`
	Rounds  int       `json:"rounds"`
	Quick   bool      `json:"quick"`
	// Restless counts the measurements that began while other processes used the processors, after a vain wait for
	// a calm machine.
	Restless int  `json:"restless"`
	Host     host `json:"host"`
	// Parts are the times of the experiments.
	Parts []part `json:"parts"`
	Rows  []row  `json:"rows"`
}

// part is an experiment: its rows are measured together.
type part struct {
	Name   string  `json:"name"`
	Rounds int     `json:"rounds"`
	Took   float64 `json:"took_s"`
}

// host describes the machine, which affects the numbers.
type host struct {
	CPUs       int    `json:"cpus"`
	CPU        string `json:"cpu"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Folder     string `json:"folder"`
	FileSystem string `json:"file_system"`
	// LoadBefore and LoadAfter are the load averages over 1, 5 and 15 minutes.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
	// Stolen is the share of the processors' time that the hypervisor gave to others.
	Stolen float64 `json:"stolen"`
}

const legend = `

How to read the table: each row measures the product, and in the same run what it is compared with (AGAINST: the
baseline). PRODUCT and BASELINE are their values with the unit, p50 and p99 the percentiles of single calls. The ratio
is product divided by baseline: the median of the rounds' own ratios, which are between MIN and MAX. A row without a
baseline is judged by its value. ASKED is what the ratio (or the value) must be, AIM what would be better still; with
"≥" more is better, with "≤" less. VERDICT says whether it is met. Values and percentiles are medians of all rounds.
`

// printTimes writes how long each experiment took.
func (r report) printTimes(out io.Writer) {
	for i, p := range r.Parts {
		if i == 0 {
			fmt.Fprint(out, "\nTime of the measurements, with their rounds:\n")
		}
		fmt.Fprintf(out, "%6.1f s  %d  %s\n", p.Took, p.Rounds, p.Name)
	}
}

// print writes the table for people.
func (r report) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	mode := ""
	if r.Quick {
		mode = ", quick: too short to be quoted"
	}
	fmt.Fprintf(out, "%d rounds in %s%s\n",
		r.Rounds, time.Duration(r.Took*float64(time.Second)).Round(time.Second), mode)
	if r.Restless > 0 {
		fmt.Fprintf(out, "%d times other processes used the processors for all of --calm\n", r.Restless)
	}
	fmt.Fprintf(out, "%d × %s, Linux %s, %s, state on %s in %s\n",
		r.Host.CPUs, r.Host.CPU, r.Host.Kernel, r.Host.Go, r.Host.FileSystem, r.Host.Folder)
	fmt.Fprintf(out, "load average %s before, %s after; %.1f%% of the processors' time stolen\n\n",
		r.Host.LoadBefore, r.Host.LoadAfter, 100*r.Host.Stolen)

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table,
		"ROW\tMEASURED\tPRODUCT\tp50 / p99\tAGAINST\tBASELINE\tp50 / p99\tRATIO\tMIN-MAX\tASKED\tAIM\tVERDICT")
	for _, row := range r.Rows {
		fmt.Fprintln(table, strings.Join(row.cells(), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := printGrowth(out, r.Rows); err != nil {
		return err
	}
	for _, row := range r.Rows {
		for _, note := range row.notes {
			fmt.Fprintf(out, "\n%s: %s", row.key, note)
		}
		for _, peer := range row.peers {
			fmt.Fprintf(out, "\n%s: %s has %.2f (%.2f-%.2f)",
				row.key, peer.Name, peer.Ratio.Median, peer.Ratio.Least, peer.Ratio.Most)
		}
		if row.missing != "" {
			fmt.Fprintf(out, "\n%s: not measured: %s", row.key, row.missing)
		}
	}
	fmt.Fprint(out, legend)
	r.printTimes(out)
	return out.Flush()
}

func (r row) cells() []string {
	least, most := r.ratio.spread()
	against, baseline := r.against, "-"
	ratio, extent := fmt.Sprintf("%.2f", r.ratio.median()), fmt.Sprintf("%.2f-%.2f", least, most)
	if r.baseline != nil {
		baseline = format(r.unit, r.baseline.median())
	} else {
		against, ratio = "-", "-"
		extent = fmt.Sprintf("%s-%s", format(r.unit, least), format(r.unit, most))
	}
	bound := func(v float64) string {
		sign := "≤"
		if r.higher {
			sign = "≥"
		}
		switch {
		case v == 0:
			return "-"
		case r.baseline == nil:
			return sign + " " + format(r.unit, v)
		}
		return fmt.Sprintf("%s %.2f", sign, v)
	}
	aim := bound(r.aim)
	if r.aimValue != 0 {
		aim = "≤ " + format(r.unit, r.aimValue)
	}
	product := format(r.unit, r.product.median())
	if len(r.product) == 0 {
		product, baseline, ratio, extent = "-", "-", "-", "-"
	}
	return []string{
		r.key, r.what, product, r.productLatency.String(), against, baseline,
		r.baselineLatency.String(), ratio, extent, bound(r.floor), aim, r.verdict(),
	}
}

// String returns both percentiles for a cell of the table, "-" if there are none.
func (p *percentiles) String() string {
	if p == nil {
		return "-"
	}
	return format(seconds, p.P50) + " / " + format(seconds, p.P99)
}

// format formats a value for people.
func format(u unit, v float64) string {
	switch u {
	case count:
		if v < 1000 {
			return fmt.Sprintf("%.4g", v)
		}
		return fmt.Sprintf("%.0f", v)
	case perSecond:
		return fmt.Sprintf("%.0f/s", v)
	case bytesUnit:
		if v < 1<<20 {
			return fmt.Sprintf("%.2f KiB", v/(1<<10))
		}
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case perBytes:
		return fmt.Sprintf("%.0f MiB/s", v/(1<<20))
	case ofCore:
		if v < 1e-4 {
			return fmt.Sprintf("%.4f%%", 100*v)
		}
		return fmt.Sprintf("%.2f%%", 100*v)
	case seconds:
	}
	switch {
	case v < 1e-3:
		return fmt.Sprintf("%.1f µs", v*1e6)
	case v < 1:
		return fmt.Sprintf("%.2f ms", v*1e3)
	}
	return fmt.Sprintf("%.2f s", v)
}

// write writes the report to a file as JSON, through a temporary file.
func (r report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, append(text, '\n'), 0o644); err != nil { //nolint:gosec // everybody may read it
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
