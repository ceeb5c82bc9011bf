package wire

// Marks track which output the peer may have seen. The owner of the output marks each part that it appends, with
// numbers that grow.
type Marks struct {
	next   uint32 // of the output that is appended next
	begun  uint32 // that of the output of which some may have been written
	before uint32 // the value of begun before the current write
}

// Set sets the mark of the output that is appended next.
func (m *Marks) Set(mark uint32) { m.next = mark }

// Unseen returns the first mark whose output the peer has certainly not seen.
func (m *Marks) Unseen() uint32 { return m.begun }

// begin records that the peer may see all output appended so far.
func (m *Marks) begin() { m.begun, m.before = m.next, m.begun }

// failed records that a write has failed after n bytes. If n is 0, the peer has seen nothing of it.
func (m *Marks) failed(n int) {
	if n == 0 {
		m.begun = m.before
	}
}
