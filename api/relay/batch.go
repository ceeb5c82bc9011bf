package relay

// connection is a connection with output to write.
type connection interface {
	// flush writes the output that the socket accepts without blocking, and leaves the rest to the writer goroutine.
	flush()
	// hand leaves the output to the writer goroutine.
	hand()
	// resume continues what waits for the connection to have room.
	resume(w *work)
}

// waitingLine is a queue of calls that wait for streams.
type waitingLine interface {
	// resume continues the calls for which there are streams.
	resume(w *work)
}

// displacedCall is a call that another call has displaced from a queue.
type displacedCall interface {
	// displace ends the call.
	displace(w *work)
}

// work is the work that a goroutine must do after it has handled the current frames: connections to flush, queues
// whose calls may go on, and calls to end because other calls have displaced them. The zero value is no work.
type work struct {
	conns     []connection
	queues    []waitingLine
	displaced []displacedCall
}

// write adds a connection that has output to write.
func (w *work) write(c connection) { w.conns = append(w.conns, c) }

// wake adds a queue whose calls may go on.
func (w *work) wake(q waitingLine) { w.queues = append(w.queues, q) }

// end adds a call that has been displaced.
func (w *work) end(c displacedCall) { w.displaced = append(w.displaced, c) }

// do does the work. No lock is held.
func (w *work) do() { w.doAll(connection.flush) }

// hand is like do, but leaves the writing to the writer goroutines, so that more output can collect until they run.
func (w *work) hand() { w.doAll(connection.hand) }

func (w *work) doAll(write func(connection)) {
	for len(w.conns) > 0 || len(w.queues) > 0 || len(w.displaced) > 0 {
		for i := 0; i < len(w.displaced); i++ {
			w.displaced[i].displace(w)
		}
		w.displaced = w.displaced[:0]
		for i := 0; i < len(w.queues); i++ {
			w.queues[i].resume(w)
		}
		w.queues = w.queues[:0]
		for i := 0; i < len(w.conns); i++ {
			c := w.conns[i]
			write(c)
			c.resume(w)
		}
		w.conns = w.conns[:0]
	}
}
