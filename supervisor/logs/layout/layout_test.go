package layout

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestList(t *testing.T) {
	log := filepath.Join(t.TempDir(), "worker-1.log")
	for _, name := range []string{
		"worker-1.log", "worker-1.log.10", "worker-1.log.9", "worker-1.log.9.gz", "worker-1.log.8.gz",
		"worker-1.log.tmp.00000000000000ff", "worker-1.log.10.gz.tmp",
		// of others
		"worker-10.log.1", "worker-1.log.0", "worker-1.log.01", "worker-1.log.+1", "worker-1.log.1.old",
		"worker-1.log.1.tmp", "worker-1.log.gz", "worker-1.log.tmp.ff", "worker-1.log.tmp.", "worker-1.log.",
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(log), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(log+".11", 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := List(log)
	if err != nil {
		t.Fatal(err)
	}
	want := Files{
		Rotated: []Rotated{
			{8, CompressedPath(RotatedPath(log, 8)), true},
			{9, CompressedPath(RotatedPath(log, 9)), true},
			{9, RotatedPath(log, 9), false},
			{10, RotatedPath(log, 10), false},
		},
		Copies:     []string{CopyPath(log, 255)},
		Unfinished: []string{UnfinishedPath(RotatedPath(log, 10))},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
	if got.Next() != 11 || (Files{}).Next() != 1 {
		t.Errorf("the next ones are %d and %d, want 11 and 1", got.Next(), (Files{}).Next())
	}
	if got, err := List(filepath.Join(filepath.Dir(log), "missing", "x.log")); err != nil || len(got.Rotated) > 0 {
		t.Errorf("in a missing folder: %v, %v", got, err)
	}
}

func TestMarkerAt(t *testing.T) {
	for first, want := range map[int64]int64{
		0: 0, 1: 1, 384: 384, 385: 512, 511: 512, 512: 512, 4096 + 400: 4096 + 512, 1<<40 - 1: 1 << 40,
	} {
		if got := MarkerAt(first); got != want {
			t.Errorf("MarkerAt(%d) = %d, want %d", first, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	marker := string(Marker{ID: 1, N: 1, Cut: 512, End: 700}.Bytes())
	filler := string(Filler(MinFiller))
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	tests := map[string]struct {
		log    string
		first  int64
		at     int64
		lines  int64
		marked bool
	}{
		"empty":               {},
		"lines":               {log: "a\nb\n"},
		"blank line":          {log: " \t \na\n"},
		"only zeros":          {log: zeros(100), first: 100, at: 100, lines: 100},
		"zeros":               {log: zeros(100) + "a\n", first: 100, at: 100, lines: 100},
		"many zeros":          {log: zeros(200_000) + "a\n", first: 200_000, at: 200_000, lines: 200_000},
		"zeros within":        {log: "a" + zeros(100) + "b\n"},
		"filler":              {log: filler + "a\n", lines: MinFiller},
		"long filler":         {log: string(Filler(100_000)) + "a\n", lines: 100_000},
		"filler without end":  {log: filler[:MinFiller-1]},
		"zeros, filler":       {log: zeros(512) + filler + "a\n", first: 512, at: 512, lines: 512 + MinFiller},
		"marker":              {log: marker + zeros(700-128) + "a\n", lines: 700, marked: true},
		"marker behind zeros": {log: zeros(50) + marker + zeros(700), first: 50, at: 50, lines: 700, marked: true},
		"marker in a sector": {
			log:   zeros(400) + strings.Repeat("x", 112) + marker + zeros(100),
			first: 400, at: 512, lines: 700, marked: true,
		},
		"marker short of its end": {log: marker + "a\n"},
		"marker within":           {log: "a\n" + marker + zeros(700) + "a\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(tt.log), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			p, err := Find(f)
			if err != nil {
				t.Fatal(err)
			}
			if p.First != tt.first || p.At != tt.at || p.Lines != tt.lines || (p.Marker != nil) != tt.marked ||
				p.Size != int64(len(tt.log)) {
				t.Errorf("%+v, want %+v", p, tt)
			}
		})
	}
}

func TestFiller(t *testing.T) {
	for _, n := range []int64{MinFiller, MinFiller + 1, 5000} {
		b := Filler(n)
		if int64(len(b)) != n || len(bytes.TrimSpace(b)) > 0 || bytes.IndexByte(b, '\n') != len(b)-1 || !isFiller(b) {
			t.Errorf("Filler(%d) = %q", n, b)
		}
	}
}

func FuzzParseMarker(f *testing.F) {
	valid := Marker{ID: 1 << 63, N: 7, Cut: 4096, End: 5000}.Bytes()
	f.Add(valid)
	f.Add(valid[:MarkerSize-1])
	f.Add(bytes.Replace(valid, []byte("n=0"), []byte("n=1"), 1))
	f.Add(Marker{N: 0, End: 1}.Bytes())
	f.Add(Marker{N: 1, Cut: 2, End: 1}.Bytes())
	f.Add(Marker{N: 1, Cut: -2, End: -1}.Bytes())
	f.Add([]byte(strings.Repeat(markerHead, 10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := ParseMarker(b)
		switch {
		case !ok:
			if m != (Marker{}) {
				t.Errorf("%q is no marker, but %+v", b, m)
			}
		case m.N == 0 || m.Cut < 0 || m.End < m.Cut:
			t.Errorf("%q is %+v", b, m)
		case !bytes.HasPrefix(b, m.Bytes()):
			t.Errorf("%q is %+v, which is %q", b, m, m.Bytes())
		}
	})
}

// Every marker can be read, and no marker with a changed byte.
func FuzzMarker(f *testing.F) {
	f.Add(uint64(1), uint64(2), int64(3), int64(4), uint(5), byte(1))
	f.Fuzz(func(t *testing.T, id, n uint64, cut, end int64, at uint, change byte) {
		m := Marker{ID: id, N: n, Cut: cut, End: end}
		b := m.Bytes()
		got, ok := ParseMarker(b)
		if valid := n > 0 && cut >= 0 && end >= cut; ok != valid || ok && got != m {
			t.Errorf("%+v is read as %+v, %t", m, got, ok)
		}
		if len(b) != MarkerSize && cut >= 0 && end >= 0 {
			t.Errorf("%d bytes", len(b))
		}
		b[at%uint(len(b))] ^= change
		if got, ok := ParseMarker(b); ok && change != 0 {
			t.Errorf("%q is read as %+v", b, got)
		}
	})
}
