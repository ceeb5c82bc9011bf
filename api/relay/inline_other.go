//go:build !unix

package relay

// inline is true if reads and writes that do not block are available.
const inline = false

type attempt struct{}

func (s *socket) tryWrite([]byte) (int, error) { return 0, nil }

func (s *socket) readRaw(in *input, arrived func(n int) error) error { return in.readPlain(s, arrived) }
