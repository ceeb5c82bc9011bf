package relay

// batch collects the work that a goroutine must do after it has handled the current frames: connections to flush,
// pools whose waiting calls may go on, and calls to end because other calls have displaced them from a pool's
// queue.
type batch struct {
	conns     []*conn
	pools     []*pool
	displaced []waiter
}

// flush does the work of the batch. No lock is held.
func (b *batch) flush() { b.do((*conn).flush) }

// hand is like flush, but leaves the writing to the writer goroutines, so that more output can collect until they
// run.
func (b *batch) hand() { b.do((*conn).hand) }

func (b *batch) do(write func(*conn)) {
	for len(b.conns) > 0 || len(b.pools) > 0 || len(b.displaced) > 0 {
		for i := 0; i < len(b.displaced); i++ {
			b.displaced[i].displace(b)
		}
		b.displaced = b.displaced[:0]
		for i := 0; i < len(b.pools); i++ {
			b.pools[i].resume(b)
		}
		b.pools = b.pools[:0]
		for i := 0; i < len(b.conns); i++ {
			c := b.conns[i]
			write(c)
			c.resume(b)
		}
		b.conns = b.conns[:0]
	}
}
