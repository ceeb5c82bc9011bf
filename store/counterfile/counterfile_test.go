package counterfile

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// FuzzTally generates the counts that a crash may leave in the two files. The settled count must be at least the
// larger of the two totals. Its keyed part must not exceed the larger of the keyed parts in the two files.
func FuzzTally(f *testing.F) {
	f.Add(int64(15), int64(4), int64(13), int64(7), uint64(9))
	f.Add(int64(15), int64(-1), int64(13), int64(7), uint64(9))
	f.Add(int64(0), int64(0), int64(13), int64(7), uint64(0))
	f.Add(int64(18), int64(7), int64(13), int64(0), uint64(1))
	f.Add(int64(1<<62), int64(0), int64(1<<62), int64(1<<62), uint64(1))
	f.Fuzz(func(t *testing.T, cp, ck, dp, dk int64, sequence uint64) {
		if cp < 0 || dp < 0 || ck > cp || dk > dp || ck < -1 || dk < -1 {
			t.Skip("neither file says so")
		}
		c, d := Tally{cp, ck}, Tally{dp, dk}
		got := Merged(Reading{Newest: Copy{sequence, c}}, d)
		if sequence == 0 && cp > 0 {
			t.Skip("a counter that is missing says nothing")
		}
		if got.Processed < max(cp, dp) || got.Keyed < 0 || got.Keyed > got.Processed || got.Keyed > max(ck, dk, 0) {
			t.Errorf("of %+v and %+v comes %+v", c, d, got)
		}
		if cp|dp < 1<<61 && ck >= 0 && dk >= ck && got.Processed > max(cp, dp)+dk-ck {
			t.Errorf("of %+v and %+v comes %+v, more than both have seen", c, d, got)
		}
		if again := Merged(Reading{Newest: Copy{1, got}}, got); again != got {
			t.Errorf("of %+v in both files comes %+v", got, again)
		}
	})
}

// FuzzCounter generates the two copies of counter.dat and the length of the data that follows them.
func FuzzCounter(f *testing.F) {
	var a, b [copySize]byte
	Copy{Sequence: 8, Tally: Tally{Processed: 41}}.Put(a[:], time.Time{})
	Copy{Sequence: 9, Tally: Tally{Processed: 42}}.Put(b[:], time.Time{})
	f.Add(a[:], b[:], 0)
	f.Add(b[:], a[:], 0)
	f.Add(a[:], bytes.Repeat([]byte{0xff}, copySize), 0)
	f.Add([]byte{}, []byte{}, 0)
	f.Add(a[:], b[:], -1)
	f.Add(a[:], b[:], 1)
	var negative [copySize]byte
	Copy{Sequence: 10, Tally: Tally{Processed: -1}}.Put(negative[:], time.Time{})
	f.Add(a[:], negative[:], 0)
	f.Add(negative[:], b[:], 0)
	f.Fuzz(func(t *testing.T, a, b []byte, more int) {
		content := make([]byte, counterSize)
		copy(content[:copyDistance], a)
		copy(content[copyDistance:], b)
		if more %= counterSize; more != 0 {
			if got, damaged, err := parse(slices.Concat(content, content)[:counterSize+more]); err == nil ||
				damaged != nil || got != (Copy{}) {
				t.Errorf("%d bytes: %v, %v, %v", counterSize+more, got, damaged, err)
			}
		}
		got, damaged, err := parse(content)
		c0, err0 := parseCopy(content)
		c1, err1 := parseCopy(content[copyDistance:])
		switch {
		case (err0 != nil && err1 != nil) != (err != nil):
			t.Errorf("copies %v, %v; file %v", err0, err1, err)
		case err == nil && (err0 != nil || err1 != nil) != (damaged != nil):
			t.Errorf("copies %v, %v; damaged %v", err0, err1, damaged)
		case err == nil && got != c0 && got != c1:
			t.Errorf("%v is neither %v nor %v", got, c0, c1)
		case err0 == nil && got.Sequence < c0.Sequence, err1 == nil && got.Sequence < c1.Sequence:
			t.Errorf("%v is not the newest of %v and %v", got, c0, c1)
		case err == nil && got.Processed < 0:
			t.Errorf("count %d", got.Processed)
		}
		if err0 == nil { // an accepted copy is the same as the store would have written it
			var again [copySize]byte
			if c0.Put(again[:], time.Time{}); !bytes.Equal(again[:24], content[:24]) {
				t.Errorf("copy %v is written as %x, was %x", c0, again, content[:copySize])
			}
		}
	})
}

// After a crash, each file may have counts that the other lacks: see Tally.
func TestCountOfTwoFiles(t *testing.T) {
	for name, c := range map[string]struct {
		counter, database Tally
		want              int64
	}{
		"nothing happened":                         {Tally{10, 4}, Tally{10, 4}, 10},
		"counted since":                            {Tally{15, 4}, Tally{10, 4}, 15},
		"stored, and the counter not written":      {Tally{10, 4}, Tally{13, 7}, 13},
		"stored, and others counted meanwhile":     {Tally{15, 4}, Tally{13, 7}, 18},
		"both files written":                       {Tally{18, 7}, Tally{13, 7}, 18},
		"a power cut took the counter back":        {Tally{8, 3}, Tally{13, 7}, 13},
		"made anew from a backup":                  {Tally{18, 7}, Tally{18, 0}, 18},
		"made anew, and another counter":           {Tally{18, 0}, Tally{60, 0}, 60},
		"an older database":                        {Tally{18, 7}, Tally{10, 4}, 18},
		"of a release that knows no such part":     {Tally{15, -1}, Tally{13, 7}, 15},
		"of that release, and the database larger": {Tally{12, -1}, Tally{13, 7}, 13},
		"the part cannot be read":                  {Tally{15, 4}, Tally{13, -1}, 15},
	} {
		if got := Merged(Reading{Newest: Copy{1, c.counter}}, c.database); got.Processed != c.want || got.Keyed < 0 ||
			got.Keyed > got.Processed {
			t.Errorf("%s: %+v, want %d", name, got, c.want)
		}
	}
	if got := Merged(Reading{}, Tally{13, 7}); got != (Tally{13, 7}) {
		t.Errorf("without a counter: %+v", got)
	}
	if got := Merged(Reading{Newest: Copy{1, Tally{1<<63 - 1, 0}}},
		Tally{1<<63 - 1, 1 << 62}); got.Processed != 1<<63-1 {
		t.Errorf("beyond what fits: %+v", got)
	}
}
