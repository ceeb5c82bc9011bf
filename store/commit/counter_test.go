package commit

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

var errNoSpace = errors.New("no space left on this test's device")

var shortSince = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

// testCounter is a counter with an open file.
type testCounter struct {
	*counter
	path   string
	wakes  int
	fault  error // of the next writes
	causes []error
}

func newTestCounter(t *testing.T, count counterfile.Tally) *testCounter {
	t.Helper()
	c := &testCounter{path: filepath.Join(t.TempDir(), statedir.CounterName)}
	c.counter = &counter{
		ops:    statefile.Ops{At: func(moment string) error { return c.fault }},
		wake:   func() { c.wakes++ },
		failed: func(err error) { c.causes = append(c.causes, err) },
	}
	file, err := counterfile.Create(statefile.Ops{}, c.path, count, shortSince)
	if err != nil {
		t.Fatal(err)
	}
	c.acknowledge(count)
	c.exchange(file)
	t.Cleanup(func() { _ = c.exchange(nil).Close() })
	return c
}

// want checks the acknowledged count and the count in the file.
func (c *testCounter) want(t *testing.T, when string, acknowledged, written counterfile.Tally) {
	t.Helper()
	r, err := counterfile.Read(c.path)
	if err != nil || c.tally() != acknowledged || r.Newest.Tally != written || !r.Short.Equal(shortSince) {
		t.Errorf("%s: acknowledged %+v, in the file %+v, %v; want %+v, %+v",
			when, c.tally(), r.Newest.Tally, err, acknowledged, written)
	}
}

func TestCounterWritesBeforeItAcknowledges(t *testing.T) {
	c := newTestCounter(t, counterfile.Tally{Processed: 5, Keyed: 2})
	if err := errors.Join(c.add(1), c.add(2)); err != nil {
		t.Fatal(err)
	}
	c.want(t, "added", counterfile.Tally{Processed: 8, Keyed: 2}, counterfile.Tally{Processed: 8, Keyed: 2})
	if c.wakes != 1 || !c.needsSync() {
		t.Errorf("woken %d times, needs a sync: %t", c.wakes, c.needsSync())
	}
	if err := errors.Join(c.sync(), c.add(1)); err != nil || c.wakes != 2 || !c.needsSync() {
		t.Errorf("after a sync: %v, woken %d times", err, c.wakes)
	}
	if err := c.write(counterfile.Tally{Processed: 20, Keyed: 2}); err != nil {
		t.Fatal(err)
	}
	c.want(t, "written", counterfile.Tally{Processed: 9, Keyed: 2}, counterfile.Tally{Processed: 20, Keyed: 2})
}

func TestCounterRefusesAfterAFailedWrite(t *testing.T) {
	c := newTestCounter(t, counterfile.Tally{Processed: 5})
	c.fault = errNoSpace
	if err := c.add(1); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errNoSpace) {
		t.Errorf("failed: %v", err)
	}
	c.fault = nil
	if err := c.add(1); !errors.Is(err, ErrUnavailable) || len(c.causes) != 1 || !errors.Is(c.causes[0], errNoSpace) {
		t.Errorf("after the failure: %v, causes %v", err, c.causes)
	}
	c.refuse(ErrClosed) // only the first reason counts
	if err := c.addStored(0, 1); err != nil || c.needsSync() {
		t.Errorf("stored after the failure: %v", err)
	}
	c.want(t, "stored", counterfile.Tally{Processed: 6, Keyed: 1}, counterfile.Tally{Processed: 5})
	c.resume()
	if err := c.add(1); err != nil {
		t.Error(err)
	}
	c.want(t, "resumed", counterfile.Tally{Processed: 7, Keyed: 1}, counterfile.Tally{Processed: 7, Keyed: 1})
	c.fault = errNoSpace
	if err := c.addStored(1, 1); !errors.Is(err, errNoSpace) { // acknowledged even so: it is in the database
		t.Errorf("stored, and the write failed: %v", err)
	}
	c.want(t, "not written", counterfile.Tally{Processed: 9, Keyed: 2}, counterfile.Tally{Processed: 7, Keyed: 1})
}

func TestClosedCounterTakesOnlyWhatIsStored(t *testing.T) {
	c := newTestCounter(t, counterfile.Tally{})
	c.close()
	c.resume()
	if err := c.add(1); !errors.Is(err, ErrClosed) {
		t.Errorf("added: %v", err)
	}
	if err := c.addStored(2, 1); err != nil {
		t.Error(err)
	}
	c.want(t, "stored", counterfile.Tally{Processed: 3, Keyed: 1}, counterfile.Tally{Processed: 3, Keyed: 1})
}

func TestCounterOfManyCallers(t *testing.T) {
	c := newTestCounter(t, counterfile.Tally{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := errors.Join(c.add(1), c.addStored(1, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all := counterfile.Tally{Processed: 8 * 100 * 3, Keyed: 8 * 100}
	c.want(t, "in the end", all, all)
}
