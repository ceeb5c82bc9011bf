package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

func sequences(entries []records.Entry) (out []uint64) {
	for _, e := range entries {
		out = append(out, e.Seq)
	}
	return out
}

func TestEventsAreReadByNumber(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{MaxEvents: 5})
	if last, _ := db.LastEvent(); last != 0 {
		t.Errorf("a new history ends at %d", last)
	}
	_, grown := db.LastEvent()
	for i := range 8 {
		put(t, db, records.AppendEvent(records.Event{Type: fmt.Sprint(i + 1)}))
	}
	select {
	case <-grown:
	default:
		t.Error("the growth is not announced")
	}
	if last, _ := db.LastEvent(); last != 8 {
		t.Errorf("the history ends at %d, want 8", last)
	}
	for _, test := range []struct {
		after uint64
		most  int
		want  []uint64
	}{
		{0, 100, []uint64{4, 5, 6, 7, 8}},
		{5, 2, []uint64{6, 7}},
		{7, 100, []uint64{8}},
		{8, 100, nil},
		{1<<64 - 1, 100, nil},
	} {
		entries, err := db.Events(test.after, test.most)
		if got := sequences(entries); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("Events(%d, %d) = %v, %v, want %v", test.after, test.most, got, err, test.want)
		}
		for _, e := range entries {
			if e.Type != fmt.Sprint(e.Seq) {
				t.Errorf("event %d is %+v", e.Seq, e)
			}
		}
	}
	mustClose(t, db)
	entries, err := ReadEvents(dir)
	if got := sequences(entries); err != nil || !slices.Equal(got, []uint64{4, 5, 6, 7, 8}) {
		t.Errorf("without a master: %v, %v", got, err)
	}
	db = openTest(t, dir, Options{MaxEvents: 5})
	if last, _ := db.LastEvent(); last != 8 {
		t.Errorf("after a restart the history ends at %d, want 8", last)
	}
}

// A worker that is restarted without end does not push the acts of operators out of the history.
func TestActsOfOperatorsOutliveOtherEvents(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{MaxEvents: 5})
	act := records.AppendEvent(records.Event{Type: "act", Operator: &records.Operator{UID: 1}})
	other := records.AppendEvent(records.Event{Type: "other"})
	end := records.AppendEvent(records.Event{Type: "stopped", Operator: &records.Operator{UID: 1}}) // no act
	muts := []records.Mutation{other, act, act, end}
	for range 50 {
		muts = append(muts, other)
	}
	put(t, db, muts...)
	entries, err := db.Events(0, 100)
	if got := sequences(entries); err != nil || !slices.Equal(got, []uint64{2, 3, 50, 51, 52, 53, 54}) {
		t.Errorf("kept: %v, %v", got, err)
	}
	var many []records.Mutation
	for range records.MaxActs + 3 {
		many = append(many, act, other)
	}
	put(t, db, many...)
	if entries, err = db.Events(0, 10_000); err != nil {
		t.Fatal(err)
	}
	acts := slices.DeleteFunc(slices.Clone(entries), func(e records.Entry) bool { return e.Operator == nil })
	last, _ := db.LastEvent()
	older := slices.IndexFunc(acts, func(e records.Entry) bool { return e.Seq > last-5 })
	if older != records.MaxActs || len(entries) != records.MaxActs+5 {
		t.Errorf("%d older acts and %d events are kept, want %d and 5 more", older, len(entries), records.MaxActs)
	}
}

// A reader that follows the numbers sees each event once while others are recorded.
func TestFollowingLosesNothing(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{MaxEvents: 10_000})
	const writers, each = 8, 100
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				put(t, db, records.AppendEvent(records.Event{Type: "x"}))
			}
		})
	}
	for after := uint64(0); after < writers*each; {
		last, grown := db.LastEvent()
		if last == after {
			<-grown
			continue
		}
		entries, err := db.Events(after, 7)
		if err != nil || len(entries) == 0 {
			t.Fatalf("after %d of %d: %v, %v", after, last, entries, err)
		}
		for _, e := range entries {
			if after++; e.Seq != after {
				t.Fatalf("event %d follows %d", e.Seq, after-1)
			}
		}
	}
	wg.Wait()
}
