package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		key     string
		product float64 // with a baseline of 1
		want    string
	}{
		{rowAlways64, 0.74, verdictShort},
		{rowAlways64, 0.75, verdictFloor},
		{rowAlways64, 0.85, verdictAim},
		{rowCPU, 1.5, verdictShort},
		{rowCPU, 1.4, verdictFloor},
		{rowCPU, 1.3, verdictAim},
		{rowLatency, 1.15, verdictFloor},
		{rowLatency, 0.5, verdictFloor}, // it has no aim
		{rowLatency, 1.16, verdictShort},
	} {
		if got := newRow(test.key, series{test.product}, series{1}).verdict(); got != test.want {
			t.Errorf("verdict on %s with %v = %q, want %q", test.key, test.product, got, test.want)
		}
	}
	for value, want := range map[float64]string{0.005: verdictFloor, 0.02: verdictShort} {
		if got := newRow(rowIdleCPU, series{value}, nil).verdict(); got != want {
			t.Errorf("verdict on %v of a core = %q, want %q", value, got, want)
		}
	}
	for _, test := range []struct {
		ratio, value, peer float64
		key, want          string
	}{
		{ratio: 0.7, peer: 0.71, key: rowForward64, want: verdictShort},
		{ratio: 0.7, peer: 0.69, key: rowForward64, want: verdictFloor},
		{ratio: 0.86, peer: 0.69, key: rowForward64, want: verdictAim},
		{ratio: 0.86, peer: 0.9, key: rowForward64, want: verdictShort}, // regardless of the aim
		{ratio: 1.1, value: 8e-6, key: rowForwardCPU, want: verdictShort},
		{ratio: 0.9, value: 10e-6, key: rowForwardCPU, want: verdictFloor},
		{ratio: 0.6, value: 8.9e-6, key: rowForwardCPU, want: verdictAim},
	} {
		value := cmp.Or(test.value, 1)
		r := newRow(test.key, series{value}, series{value / test.ratio})
		if test.peer != 0 {
			r.beside("a slower peer", series{test.peer / 2})
			r.beside("a peer", series{test.peer})
		}
		if got := r.verdict(); got != test.want {
			t.Errorf("verdict on %+v = %q, want %q", test, got, test.want)
		}
	}
	missing := newRow(rowForward64, series{1}, series{1})
	missing.missing = "no peer is here"
	for _, r := range []row{missing, unmeasured(rowForward64, "nothing is here")} {
		if got := r.verdict(); got != verdictNone {
			t.Errorf("verdict on what %s = %q, want %q", r.missing, got, verdictNone)
		}
	}
	if got := newRow(rowAlways64, nil, series{}).verdict(); got != verdictShort {
		t.Errorf("verdict on nothing = %q, want %q", got, verdictShort)
	}
}

func TestEveryRowHasAFigure(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range figures {
		if f.key == "" || f.what == "" || f.unit == "" || f.floor == 0 && !f.beatsPeers || seen[f.key] {
			t.Errorf("figure %+v is incomplete or there twice", f)
		}
		seen[f.key] = true
		if f.aim != 0 && f.higher != (f.aim > f.floor) {
			t.Errorf("%s: the aim %v is easier than the floor %v", f.key, f.aim, f.floor)
		}
	}
	if got := wanted(regexp.MustCompile("^always|cpu/64$")); len(got) != 3 ||
		!got[rowAlways64] || !got[rowAlways256] || !got[rowCPU] {
		t.Errorf("chosen rows = %v", got)
	}
}

func sample() report {
	call := newRow(rowAlways64, series{700, 800, 750}, series{1000, 1000, 1000})
	call.productLatency, call.baselineLatency = &percentiles{0.0021, 0.0052}, &percentiles{850e-6, 0.0013}
	call.notes = []string{"a note"}
	return report{
		Started: time.Unix(0, 0).UTC(), Took: 61.4, Rounds: 3, Quick: true,
		Host: host{
			CPUs: 2, CPU: "Some CPU", Kernel: "6.18", Go: "go1.26", Folder: "/tmp", FileSystem: "ext4",
			LoadBefore: "0.1 0.2 0.3", LoadAfter: "2.0 1.0 0.5", Stolen: 0.015,
		},
		Rows: []row{
			call,
			newRow(rowIdleCPU, series{0.004, 0.006, 0.005}, nil),
			newRow(rowRSS, series{20 << 20}, series{16 << 20}),
		},
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := sample().print(&out); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` +`).ReplaceAllString(out.String(), " ")
	for _, want := range []string{
		"3 rounds in 1m1s, quick",
		"2 × Some CPU, Linux 6.18, go1.26, state on ext4 in /tmp",
		"load average 0.1 0.2 0.3 before, 2.0 1.0 0.5 after; 1.5% of",
		"750/s 2.10 ms / 5.20 ms same server, not counting " +
			"1000/s 850.0 µs / 1.30 ms 0.75 0.70-0.80 ≥ 0.75 ≥ 0.85 met\n",
		"0.50% - - - - - 0.40%-0.60% ≤ 1.00% - met\n",
		"20.0 MiB - bare gRPC, bbolt, 100 connections 16.0 MiB - 1.25 1.25-1.25 ≤ 1.20 - NOT MET\n",
		"always/64: a note\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	// Columns begin at the same rune in each line of the table.
	var at []int
	for line := range strings.Lines(out.String()) {
		before, _, found := strings.Cut(line, "RATIO")
		if !found && strings.HasPrefix(line, rowAlways64) {
			before, _, found = strings.Cut(line, "0.75 ")
		}
		if found {
			at = append(at, len([]rune(before)))
		}
	}
	if len(at) != 2 || at[0] != at[1] {
		t.Errorf("the ratios are not below their heading: %v\n%s", at, out.String())
	}
}

func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := sample().write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rounds int
		Host   struct {
			LoadBefore string `json:"load_before"`
		}
		Rows []struct {
			Key, Unit, Better, Verdict string
			Product, Baseline, Ratio   *struct {
				Median, Min, Max float64
				Rounds           []float64
			}
			Floor, Aim     float64
			ProductLatency *struct {
				P99 float64 `json:"p99_s"`
			} `json:"product_latency"`
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Rounds != 3 || got.Host.LoadBefore != "0.1 0.2 0.3" || len(got.Rows) != 3 {
		t.Fatalf("read %+v", got)
	}
	first, second := got.Rows[0], got.Rows[1]
	if first.Key != rowAlways64 || first.Unit != "requests/s" ||
		first.Better != "higher" || first.Verdict != verdictFloor ||
		first.Product.Median != 750 || first.Baseline.Median != 1000 ||
		first.Ratio.Median != 0.75 || first.Ratio.Min != 0.7 || len(first.Product.Rounds) != 3 ||
		first.Floor != 0.75 || first.Aim != 0.85 || first.ProductLatency.P99 != 0.0052 {
		t.Errorf("row = %s", text)
	}
	if second.Baseline != nil || second.Ratio != nil || second.Product.Median != 0.005 {
		t.Errorf("a row without a baseline has one, or no value: %s", text)
	}
}

func TestParseOptions(t *testing.T) {
	o, err := parse(nil, figures)
	if err != nil || o.rounds != 7 || o.quick || o.json != "bench.json" || !o.rows.MatchString(rowRespawn) {
		t.Errorf("defaults = %+v, %v", o, err)
	}
	if o, err = parse([]string{"--quick"}, figures); err != nil || o.rounds != 3 {
		t.Errorf("--quick = %+v, %v, want 3 rounds", o, err)
	}
	if o, err = parse([]string{"--quick", "--rounds", "9"}, figures); err != nil || o.rounds != 9 {
		t.Errorf("--rounds = %+v, %v, want 9 rounds", o, err)
	}
	for _, args := range [][]string{
		{"--rounds", "-1"}, {"--rows", "("}, {"--rows", "nothing"}, {"--no-such"}, {"all"},
	} {
		if o, err := parse(args, figures); err == nil {
			t.Errorf("%v = %+v, want an error", args, o)
		}
	}
}

// The measured binary is built with the tags of the release.
func TestReleaseTags(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if want := "-tags " + releaseTags + " "; !strings.Contains(string(makefile), want) {
		t.Errorf("the Makefile's BUILD has no %q: change releaseTags with it", want)
	}
}

// The product is built with the versions of its own go.mod. Baselines with other versions would compare more than
// the product.
func TestBaselinesUseTheVersionsOfTheProduct(t *testing.T) {
	product, ours := requirements(t, "../go.mod"), requirements(t, "go.mod")
	shared := 0
	for module, version := range ours {
		want, both := product[module]
		if !both {
			continue
		}
		shared++
		if version != want {
			t.Errorf("%s is required as %s, the product requires %s", module, version, want)
		}
	}
	if shared < 5 {
		t.Errorf("only %d requirements are shared: the test reads the wrong lines", shared)
	}
}

// requirements returns the version that a go.mod requires of each module.
func requirements(t *testing.T, path string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && strings.HasPrefix(line, "\t") && strings.HasPrefix(fields[1], "v") {
			versions[fields[0]] = fields[1]
		}
	}
	return versions
}
