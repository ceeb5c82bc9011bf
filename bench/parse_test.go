package main

import "testing"

func TestParseResident(t *testing.T) {
	const rollup = "00400000-7ffe1000 ---p 00000000 00:00 0    [rollup]\n" +
		"Rss:               17112 kB\n" +
		"Pss:               16000 kB\n" +
		"Pss_Anon: 1 kB\n"
	if got, err := parseResident([]byte(rollup)); err != nil || got != 17112<<10 {
		t.Errorf("resident size = %v, %v, want %v", got, err, 17112<<10)
	}
	for _, text := range []string{"", "Pss: 5 kB\n", "Rss: 5 MB\n", "Rss: many kB\n", "Rss: -5 kB\n"} {
		if got, err := parseResident([]byte(text)); err == nil {
			t.Errorf("resident size in %q = %v, want an error", text, got)
		}
	}
}

func TestParseLoad(t *testing.T) {
	if got, err := parseLoad("0.52 1.10 2.00 3/512 4711\n"); err != nil || got != "0.52 1.10 2.00" {
		t.Errorf("load = %q, %v", got, err)
	}
	if got, err := parseLoad("0.52\n"); err == nil {
		t.Errorf("load = %q, want an error", got)
	}
}

func TestParseProcessors(t *testing.T) {
	before, err := parseProcessors("cpu  10 0 10 70 5 1 1 3 99 99\ncpu0 1 2 3\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (processorTimes{idle: 75, stolen: 3, all: 100}); before != want {
		t.Fatalf("times = %+v, want %+v", before, want)
	}
	after := processorTimes{idle: 95, stolen: 8, all: 200}
	if got := after.busySince(before); got != 0.8 {
		t.Errorf("busy = %v, want 0.8", got)
	}
	if got := after.stolenSince(before); got != 0.05 {
		t.Errorf("stolen = %v, want 0.05", got)
	}
	if got := before.stolenSince(before); got != 0 {
		t.Errorf("stolen in no time = %v, want 0", got)
	}
	for _, text := range []string{"", "cpu 1 2 3\n", "cpu0 10 0 10 70 5 1 1 3\n", "cpu a 0 10 70 5 1 1 3\n"} {
		if got, err := parseProcessors(text); err == nil {
			t.Errorf("times in %q = %+v, want an error", text, got)
		}
	}
}

func TestParseLog(t *testing.T) {
	for _, test := range []struct {
		line  string
		want  logLine
		ready bool
	}{
		{
			`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"worker running",` +
				`"worker":"worker-7","pid":4711,"port":40001}`,
			logLine{"worker running", "worker-7", 4711, 40001},
			true,
		},
		{
			`{"level":"INFO","msg":"worker started","worker":"worker-7","pid":4711}`,
			logLine{"worker started", "worker-7", 4711, 0},
			false,
		},
		{
			`{"level":"INFO","msg":"worker running"}`,
			logLine{Message: "worker running"},
			false,
		},
		{
			`hsu-master: error: port in use`,
			logLine{},
			false,
		},
		{
			``,
			logLine{},
			false,
		},
	} {
		got, ready := parseLog([]byte(test.line))
		if got != test.want || ready != test.ready {
			t.Errorf("line %q = %+v, %v, want %+v, %v", test.line, got, ready, test.want, test.ready)
		}
	}
}
