package store

import "sync"

// Counted is told what has become of a count. It is an alias, so that an interface
// that others declare with Count in it need not import this package.
type Counted = interface {
	// Counted is called once: with nil when the count is as durable as Options.Sync
	// says, and else with why it is not, which is ErrUnavailable or ErrClosed.
	Counted(err error)
}

// Count counts one request, as AddProcessed does, but waits for nothing, not even for a
// write into the page cache: done is told. In steady state it allocates nothing.
//
// All are told by one goroutine, one after the other, in the order in which they were
// counted. It is neither the caller's, so that a lock may be held across Count which
// Counted takes, nor the one that writes, so that the next write is under way while
// these are told. Counted may call Count; it must not wait for a count, for Apply or
// for Close, and what it does the others wait for.
//
// A count that was taken before Close is told before Close returns. What comes later
// gets ErrClosed, from a goroutine of its own.
func (db *DB) Count(done Counted) {
	if db.opts.Sync == SyncInterval {
		// The teller counts all that are waiting with one write.
		db.teller.tell(notice{done: done, uncounted: true})
		return
	}
	db.mu.Lock()
	if err := db.refusal(); err != nil {
		db.mu.Unlock()
		db.teller.tell(notice{done: done, err: err})
		return
	}
	b := db.next
	first := !b.joined
	b.joined = true
	b.count++
	b.counts = append(b.counts, done)
	db.mu.Unlock()
	if first {
		db.kick()
	}
}

// refusal is why nothing can be made durable. The caller holds db.mu.
func (db *DB) refusal() error {
	switch {
	case db.closed:
		return ErrClosed
	case db.broken != nil:
		return unavailable(db.broken)
	}
	return nil
}

// notice is what one caller is to be told.
type notice struct {
	done      Counted
	err       error
	uncounted bool // it is still to be counted, with the others of its kind
}

// teller tells callers what has become of their counts.
type teller struct {
	mu      sync.Mutex
	waiting []notice
	ended   bool

	wake chan struct{} // one token: somebody is waiting, or it is to end
	done chan struct{} // closed when it has ended
}

func newTeller() teller {
	return teller{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// tell has n told, after those that are waiting.
func (t *teller) tell(n notice) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		go n.done.Counted(ErrClosed) // there is nobody else left to do it
		return
	}
	t.waiting = append(t.waiting, n)
	t.mu.Unlock()
	t.kick()
}

// tellAll has all of counts told the same.
func (t *teller) tellAll(counts []Counted, err error) {
	if len(counts) == 0 {
		return
	}
	t.mu.Lock() // it has not ended: the committer ends before it
	for _, done := range counts {
		t.waiting = append(t.waiting, notice{done: done, err: err})
	}
	t.mu.Unlock()
	t.kick()
}

// tellKeyed has those told that were tried in one transaction, of which err came.
func (t *teller) tellKeyed(list []*keyed, err error) {
	if len(list) == 0 {
		return
	}
	t.mu.Lock()
	for _, k := range list {
		if err != nil {
			k.err = err
		}
		t.waiting = append(t.waiting, notice{done: k.done, err: k.err})
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
			told[i] = notice{} // it may be large, and need not live until it is overwritten
		}
	}
}

// reached is told when all before it were.
type reached chan struct{}

func (r reached) Counted(error) { close(r) }

// drain returns when all that are waiting now were told.
func (t *teller) drain() {
	r := make(reached)
	t.tell(notice{done: r})
	<-r
}

// end tells those that are waiting, and ends.
func (t *teller) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.kick()
	<-t.done
}
