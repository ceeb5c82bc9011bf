package protocol

import "testing"

func TestMessages(t *testing.T) {
	stream := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 1, 0}
	stream = append(stream, make([]byte, 256)...)
	for step := 1; step < len(stream); step++ {
		var m Messages
		for at := 0; at < len(stream); at += step {
			if !m.Add(stream[at:min(at+step, len(stream))], 256) {
				t.Fatalf("steps of %d: too large", step)
			}
		}
		if m.Inside() {
			t.Errorf("steps of %d: inside a message at the end", step)
		}
		m = Messages{}
		ok := true
		for at := 0; at < len(stream) && ok; at += step {
			ok = m.Add(stream[at:min(at+step, len(stream))], 255)
		}
		if ok {
			t.Errorf("steps of %d: a message of 256 bytes is within 255", step)
		}
	}
}
