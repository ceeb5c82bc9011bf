package history

import (
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

// kept is a source with the events of these numbers.
type kept struct {
	seqs []uint64
	most int // the largest number of events that were read at once
}

func (k *kept) Events(after uint64, most int) (entries []records.Entry, err error) {
	for _, seq := range k.seqs {
		if seq > after && len(entries) < most {
			e := records.Event{Worker: "even-0", Type: "started"}
			if seq%2 == 1 {
				e.Worker = "odd-0"
			}
			entries = append(entries, records.Entry{Seq: seq, Event: e})
		}
	}
	k.most = max(k.most, len(entries))
	return entries, nil
}

func (k *kept) LastEvent() (last uint64, grown <-chan struct{}) { return k.seqs[len(k.seqs)-1], nil }

func upTo(n uint64) (seqs []uint64) {
	for seq := uint64(1); seq <= n; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

// However many events a query selects, few are in memory at a time.
func TestPass(t *testing.T) {
	for name, test := range map[string]struct {
		q           Query
		first, many uint64
	}{
		"all":       {Query{Last: -1}, 1, 1000},
		"newest":    {Query{Last: 300}, 701, 300},
		"fewer":     {Query{Last: 3000}, 1, 1000},
		"none":      {Query{Last: 0}, 0, 0},
		"after":     {Query{Last: -1, After: 900}, 901, 100},
		"of one":    {Query{Last: -1, Names: []string{"odd-0"}}, 1, 500},
		"newest of": {Query{Last: 10, Names: []string{"odd-0", "x"}}, 981, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := &kept{seqs: upTo(1000)}
			v, err := Look(s, test.q)
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			lost, err := v.Pass(s, test.q, func(entries []records.Entry, until uint64) error {
				for _, e := range entries {
					got = append(got, e.Seq)
				}
				if last := got[len(got)-1]; until < last || until > 1000 {
					t.Errorf("all up to %d are said to be passed after %d", until, last)
				}
				return nil
			})
			if err != nil || lost != 0 || uint64(len(got)) != test.many || v.Selected != test.many {
				t.Errorf("%v, %d lost, %d passed of %d, want %d", err, lost, len(got), v.Selected, test.many)
			}
			if len(got) > 0 && got[0] != test.first || !slices.IsSorted(got) {
				t.Errorf("from %d on, want %d", got[0], test.first)
			}
			if s.most > few {
				t.Errorf("%d events are read at once", s.most)
			}
			if unknown := slices.Contains(test.q.Names, "x"); unknown != slices.Equal(v.Unknown, []string{"x"}) {
				t.Errorf("unknown names: %q", v.Unknown)
			}
		})
	}
}

// Events that are removed before they are passed are counted, and new ones are left for the follower.
func TestPassOfAChangingHistory(t *testing.T) {
	s := &kept{seqs: upTo(1000)}
	q := Query{Last: -1}
	v, err := Look(s, q)
	if err != nil {
		t.Fatal(err)
	}
	s.seqs = upTo(2000)
	passed := uint64(0)
	lost, err := v.Pass(s, q, func(entries []records.Entry, _ uint64) error {
		passed += uint64(len(entries))
		s.seqs = upTo(2000)[800:]
		return nil
	})
	if err != nil || passed+lost != 1000 || lost != 800-few {
		t.Errorf("%v, %d passed, %d lost, want 1000 in all and %d lost", err, passed, lost, 800-few)
	}
}
