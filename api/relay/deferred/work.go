// Package deferred holds the work that goroutines of the relay put off: until they have handled the current frames
// and hold no lock ([Work]), or until a goroutine does it for several of them at once ([Acks]). It knows connections,
// queues and calls only as interfaces, so it defines the order in which their work is done and nothing else.
package deferred

// Conn is a connection with output to write.
type Conn interface {
	// Flush writes the output that the socket accepts without blocking, and leaves the rest to the writer goroutine.
	Flush()
	// Hand leaves the output to the writer goroutine.
	Hand()
	// Resume continues what waits for the connection to have room.
	Resume(w *Work)
}

// Queue is a queue of calls that wait for streams.
type Queue interface {
	// Resume continues the calls for which there are streams.
	Resume(w *Work)
}

// Call is a call that another call has displaced from a queue.
type Call interface {
	// Displace ends the call.
	Displace(w *Work)
}

// Work is the work that a goroutine must do after it has handled the current frames: connections to flush, queues
// whose calls may go on, and calls to end because other calls have displaced them. The zero value is no work.
type Work struct {
	conns     []Conn
	queues    []Queue
	displaced []Call
}

// Write adds a connection that has output to write.
func (w *Work) Write(c Conn) { w.conns = append(w.conns, c) }

// Wake adds a queue whose calls may go on.
func (w *Work) Wake(q Queue) { w.queues = append(w.queues, q) }

// End adds a call that has been displaced.
func (w *Work) End(c Call) { w.displaced = append(w.displaced, c) }

// Do does the work. No lock is held.
func (w *Work) Do() { w.doAll(Conn.Flush) }

// Hand is like Do, but leaves the writing to the writer goroutines, so that more output can collect until they run.
func (w *Work) Hand() { w.doAll(Conn.Hand) }

func (w *Work) doAll(write func(Conn)) {
	for len(w.conns) > 0 || len(w.queues) > 0 || len(w.displaced) > 0 {
		for i := 0; i < len(w.displaced); i++ {
			w.displaced[i].Displace(w)
		}
		w.displaced = w.displaced[:0]
		for i := 0; i < len(w.queues); i++ {
			w.queues[i].Resume(w)
		}
		w.queues = w.queues[:0]
		for i := 0; i < len(w.conns); i++ {
			c := w.conns[i]
			write(c)
			c.Resume(w)
		}
		w.conns = w.conns[:0]
	}
}
