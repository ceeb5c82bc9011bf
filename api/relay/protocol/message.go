package protocol

// Messages tracks the messages in a flow by the five-byte prefix of each.
type Messages struct {
	left uint32 // bytes left of the current message
	n    uint8  // bytes of the prefix that have arrived
	size [4]byte
}

// Add takes the next bytes of the flow. It returns false if a message is larger than most.
func (m *Messages) Add(p []byte, most int) bool {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(uint64(m.left), uint64(len(p)))
			m.left -= uint32(n)
			p = p[n:]
			continue
		}
		if m.n == 0 && len(p) >= 5 {
			m.left = uint32(p[1])<<24 | uint32(p[2])<<16 | uint32(p[3])<<8 | uint32(p[4])
			p = p[5:]
		} else {
			if m.n > 0 {
				m.size[m.n-1] = p[0]
			}
			m.n++
			p = p[1:]
			if m.n < 5 {
				continue
			}
			m.n = 0
			m.left = uint32(m.size[0])<<24 | uint32(m.size[1])<<16 | uint32(m.size[2])<<8 | uint32(m.size[3])
		}
		if uint64(m.left) > uint64(most) {
			return false
		}
	}
	return true
}

// Inside reports whether the flow is within a message.
func (m *Messages) Inside() bool { return m.left > 0 || m.n > 0 }
