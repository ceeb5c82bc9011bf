package commit

import (
	"sync"

	"github.com/core-tools/hsu-master/store/once"
)

// notice is a pending notification of one caller.
type notice struct {
	done      once.Counted
	err       error
	uncounted bool // the teller must still count it, together with the others like it
}

// teller notifies callers of the outcome of their counts, in a goroutine of its own.
//
// Invariant: notices are delivered in the order in which they were queued, each once, and none after end has returned
// except ErrClosed, from a goroutine of its own.
type teller struct {
	mu      sync.Mutex
	waiting []notice
	ended   bool

	wake chan struct{} // holds one token: there are notices, or the teller must end
	done chan struct{} // closed when the teller has ended
}

func newTeller() *teller {
	return &teller{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// tell queues n behind the waiting notices.
func (t *teller) tell(n notice) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		go n.done.Counted(ErrClosed) // the teller has ended and cannot notify it
		return
	}
	t.waiting = append(t.waiting, n)
	t.mu.Unlock()
	t.kick()
}

// tellAll queues the same outcome for all of counts.
func (t *teller) tellAll(counts []once.Counted, err error) {
	if len(counts) == 0 {
		return
	}
	t.mu.Lock() // the teller has not ended: the committer ends first
	for _, done := range counts {
		t.waiting = append(t.waiting, notice{done: done, err: err})
	}
	t.mu.Unlock()
	t.kick()
}

// tellResults queues the outcomes of the requests that were tried in one transaction; err is the error of that
// transaction.
func (t *teller) tellResults(list []*once.Pending, err error) {
	if len(list) == 0 {
		return
	}
	t.mu.Lock()
	for _, r := range list {
		if err != nil {
			r.Err = err
		}
		t.waiting = append(t.waiting, notice{done: r.Done, err: r.Err})
	}
	t.mu.Unlock()
	t.kick()
}

func (t *teller) kick() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run is the teller's goroutine. add counts n more requests.
func (t *teller) run(add func(n int64) error) {
	defer close(t.done)
	var told []notice
	for {
		t.mu.Lock()
		told, t.waiting = t.waiting, told[:0]
		ended := t.ended
		t.mu.Unlock()
		if len(told) == 0 {
			if ended {
				return
			}
			<-t.wake
			continue
		}
		var uncounted int64
		for _, n := range told {
			if n.uncounted {
				uncounted++
			}
		}
		var err error
		if uncounted > 0 {
			err = add(uncounted)
		}
		for i, n := range told {
			if n.uncounted {
				n.err = err
			}
			n.done.Counted(n.err)
			told[i] = notice{} // release the reference now: it may be large
		}
	}
}

// barrier is a Counted that is closed when all notices before it have been delivered.
type barrier chan struct{}

func (b barrier) Counted(error) { close(b) }

// drain waits until all notices that are waiting now have been delivered.
func (t *teller) drain() {
	b := make(barrier)
	t.tell(notice{done: b})
	<-b
}

// end delivers the waiting notices and stops the teller.
func (t *teller) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.kick()
	<-t.done
}
