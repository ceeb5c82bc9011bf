package exposition

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// written returns what write writes.
func written(t *testing.T, write func(w *Writer)) string {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	write(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// parsed returns the only family of a text, as Prometheus's own parser reads it. The text must be the same as that of
// Prometheus's own encoder.
func parsed(t *testing.T, text string) *dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families, %v in:\n%s", len(families), err, text)
	}
	for _, f := range families {
		var again strings.Builder
		if _, err := expfmt.MetricFamilyToText(&again, f); err != nil {
			t.Fatal(err)
		}
		if again.String() != text {
			t.Errorf("got:\n%s\nwant:\n%s", text, again.String())
		}
		return f
	}
	return nil
}

func TestValuesAreWrittenAsPrometheusDoes(t *testing.T) {
	temperature := NewGauge("temperature", "Up to \\ and\nbeyond.", "place")
	values := []float64{
		0, math.Copysign(0, -1), 1, -1, 0.5, -2.25, 32e-6, 999_999, 1e6 - 0.5, 1e6, -1e6, 1234567, 1 << 53, 1e21, 1e300,
		math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), 1764562537.123,
	}
	f := parsed(t, written(t, func(w *Writer) {
		w.Begin(temperature)
		for range 3 { // more than one piece
			for i, v := range values {
				w.Sample(v, strings.Repeat("x", 1000*i))
			}
		}
	}))
	if f.GetType() != dto.MetricType_GAUGE || f.GetHelp() != "Up to \\ and\nbeyond." ||
		len(f.GetMetric()) != 3*len(values) {
		t.Fatalf("%d samples of type %s, help %q", len(f.GetMetric()), f.GetType(), f.GetHelp())
	}
	for i, m := range f.GetMetric() {
		want, got := values[i%len(values)], m.GetGauge().GetValue()
		if got != want && (!math.IsNaN(want) || !math.IsNaN(got)) {
			t.Errorf("%v is read as %v", want, got)
		}
	}
}

func TestHistograms(t *testing.T) {
	for name, labels := range map[string][]string{"labelled": {"a", "b"}, "bare": nil} {
		t.Run(name, func(t *testing.T) {
			h := NewHistogram("took_seconds", "How long.", []float64{32e-6, 1, 2.5}, labels...)
			f := parsed(t, written(t, func(w *Writer) {
				w.Begin(h)
				w.Histogram([]uint64{3, 0, 2_000_000, 4}, 0.75, labels...)
			}))
			m := f.GetMetric()[0].GetHistogram()
			if m.GetSampleCount() != 2_000_007 || m.GetSampleSum() != 0.75 {
				t.Errorf("%d observations with the sum %v", m.GetSampleCount(), m.GetSampleSum())
			}
			bounds := []float64{32e-6, 1, 2.5, math.Inf(1)}
			for i, want := range []uint64{3, 3, 2_000_003, 2_000_007} {
				b := m.GetBucket()[i]
				if b.GetCumulativeCount() != want || b.GetUpperBound() != bounds[i] {
					t.Errorf("bucket %d: %d up to %v, want %d", i, b.GetCumulativeCount(), b.GetUpperBound(), want)
				}
			}
		})
	}
}

func TestFamilyWithoutSamplesIsNotWritten(t *testing.T) {
	used, empty := NewCounter("used_total", "Used."), NewCounter("empty_total", "Empty.")
	text := written(t, func(w *Writer) {
		w.Begin(empty)
		w.Begin(used)
		w.Sample(7)
		w.Begin(empty)
	})
	if want := "# HELP used_total Used.\n# TYPE used_total counter\nused_total 7\n"; text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
}

// pieces records the writes. It accepts some, and fails from then on.
type pieces struct {
	accepts int
	sizes   []int
}

var errGone = errors.New("gone")

func (p *pieces) Write(b []byte) (int, error) {
	p.sizes = append(p.sizes, len(b))
	if len(p.sizes) > p.accepts {
		return 0, errGone
	}
	return len(b), nil
}

// A text of any length is written in pieces of about the same size, and not at all any more after an error. The next
// text has nothing of it.
func TestLongTextIsWrittenInPieces(t *testing.T) {
	const samples = 20_000
	f := NewGauge("size", "A size.", "name")
	write := func(p *pieces) error {
		w := NewWriter(p)
		w.Begin(f)
		for range samples {
			w.Sample(1, "the name of the sample")
		}
		return w.Close()
	}
	p := &pieces{accepts: math.MaxInt}
	if err := write(p); err != nil {
		t.Fatal(err)
	}
	length := 0
	for i, n := range p.sizes {
		length += n
		if n > pieceSize+spareSize || n < pieceSize && i < len(p.sizes)-1 {
			t.Errorf("piece %d of %d: %d bytes", i, len(p.sizes), n)
		}
	}
	if want := len(f.head) + samples*len("size{name=\"the name of the sample\"} 1\n"); length != want {
		t.Errorf("%d bytes, want %d", length, want)
	}
	broken := &pieces{accepts: 2}
	if err := write(broken); !errors.Is(err, errGone) || len(broken.sizes) != 3 {
		t.Errorf("%v after %d writes, want 3 and that of the last one", err, len(broken.sizes))
	}
	if text := written(t, func(w *Writer) { w.Begin(f) }); text != "" {
		t.Errorf("an empty text after a broken one: %q", text)
	}
}

func TestSamplesAllocateNothing(t *testing.T) {
	g := NewGauge("size", "A size.", "name", "place")
	h := NewHistogram("took_seconds", "How long.", []float64{1, 2}, "name")
	w := NewWriter(&pieces{accepts: math.MaxInt, sizes: make([]int, 0, 1000)})
	counts := []uint64{1, 2, 3}
	if n := testing.AllocsPerRun(1000, func() {
		w.Begin(g)
		w.Sample(1764562537.123, "one", "two")
		w.Begin(h)
		w.Histogram(counts, 0.5, "one")
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzLabelValues(f *testing.F) {
	for _, seed := range []string{
		"", "worker-0", `a\b"c`, "two\nlines", `\n`, "\xff", "ok\xc3(\"\n\\", "größer", "\x00", "\uFFFD",
		"\xed\xa0\x80", "\r",
	} {
		f.Add(seed, "b", 1.5)
		f.Add("exec \xff\xfe", seed, math.Inf(1))
	}
	family := NewGauge("checked", "Whether it was checked.", "name", "probe")
	f.Fuzz(func(t *testing.T, name, probe string, value float64) {
		text := written(t, func(w *Writer) {
			w.Begin(family)
			w.Sample(value, name, probe)
			w.Sample(value, probe, name)
		})
		parsed := parsed(t, text)
		for i, values := range [][2]string{{name, probe}, {probe, name}} {
			m := parsed.GetMetric()[i]
			for j, label := range m.GetLabel() {
				if want := strings.ToValidUTF8(values[j], "\uFFFD"); label.GetValue() != want {
					t.Errorf("label %s: %q is read as %q, want %q", label.GetName(), values[j], label.GetValue(), want)
				}
			}
		}
	})
}
