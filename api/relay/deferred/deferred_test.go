package deferred

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// record is what fakes were asked to do, in order.
type record struct {
	mu    sync.Mutex
	asked []string
}

// take returns the requests since the last call.
func (r *record) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// fake is a connection, a queue and a call that record the requests to them.
type fake struct {
	name string
	log  *record
	next func(w *Work) // called by Resume
}

func (f *fake) note(what string) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.asked = append(f.log.asked, what+" "+f.name)
}
func (f *fake) Flush()         { f.note("flush") }
func (f *fake) Hand()          { f.note("hand") }
func (f *fake) Displace(*Work) { f.note("displace") }
func (f *fake) Due()           { f.note("due") }

func (f *fake) Resume(w *Work) {
	f.note("resume")
	if f.next != nil {
		f.next(w)
		f.next = nil
	}
}

// Displaced calls end first, then queues go on, then output is written; what that adds is done in the same order.
func TestWorkIsDoneInOrder(t *testing.T) {
	var log record
	conn, other := &fake{name: "conn", log: &log}, &fake{name: "other", log: &log}
	queue, call := &fake{name: "queue", log: &log}, &fake{name: "call", log: &log}
	conn.next = func(w *Work) {
		w.Write(other)
		w.Wake(queue)
	}
	var w Work
	w.Write(conn)
	w.Wake(queue)
	w.End(call)
	w.Do()
	want := []string{
		"displace call", "resume queue", "flush conn", "resume conn",
		"flush other", "resume other", "resume queue",
	}
	if got := log.take(); !slices.Equal(got, want) {
		t.Errorf("done: %q, want %q", got, want)
	}
	w.Do()
	if got := log.take(); len(got) != 0 {
		t.Errorf("done twice: %q", got)
	}
	w.Write(conn)
	w.Hand()
	if got := log.take(); !slices.Equal(got, []string{"hand conn", "resume conn"}) {
		t.Errorf("handed over: %q", got)
	}
}

// Output of Later is written after the delay, that of all connections at once; output of Now does not wait.
func TestAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log record
		a := NewAcks(time.Second)
		done := make(chan struct{})
		go a.Serve(done)
		defer close(done)
		for i := range 2 {
			a.Later(&fake{name: fmt.Sprint(i), log: &log})
			time.Sleep(time.Second / 4)
		}
		a.Now(func(w *Work) { w.Write(&fake{name: "now", log: &log}) })
		synctest.Wait()
		if got, want := log.take(), []string{"flush now", "resume now"}; !slices.Equal(got, want) {
			t.Errorf("before the delay is over: %q, want %q", got, want)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		want := []string{"due 0", "due 1", "flush 0", "resume 0", "flush 1", "resume 1"}
		if got := log.take(); !slices.Equal(got, want) {
			t.Errorf("after the delay: %q, want %q", got, want)
		}
		a.Later(&fake{name: "again", log: &log})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := log.take(); len(got) != 3 {
			t.Errorf("the delay runs once: %q", got)
		}
	})
}
