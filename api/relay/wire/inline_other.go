//go:build !unix

package wire

// inline is true if reads and writes that do not block are available.
const inline = false

type inlineWrite struct{}

func (s *Socket) tryWrite([]byte) (int, error) { return 0, nil }

func (s *Socket) readRaw(in *Input, arrived func() error) error { return in.readPlain(s, arrived) }
