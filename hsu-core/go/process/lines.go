package process

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/core-tools/hsu-core/go/logging"
)

// maxLine limits the memory that a process can take by not ending a line.
const maxLine = 16 << 20

// logLines logs each line of r, without its line end and never as a format, until r ends or fails. Text after the
// last line end counts as a line. A line of longest bytes or more is split, at a multiple of the reader's buffer
// size.
func logLines(r io.Reader, longest int, logf logging.LogFunc) {
	in := bufio.NewReader(r) // 4 KiB: every process has one
	var long []byte          // the beginning of a line that exceeds the buffer
	for {
		part, err := in.ReadSlice('\n')
		complete, full := err == nil, errors.Is(err, bufio.ErrBufferFull)
		if !complete || long != nil {
			long = append(long, part...)
			part = long
		}
		switch {
		case complete:
			part = bytes.TrimSuffix(part[:len(part)-1], []byte{'\r'})
		case full && len(long) < longest:
			continue
		}
		if complete || len(part) > 0 {
			logf("%s", string(part))
		}
		if !complete && !full {
			return
		}
		long = nil // release the memory: most lines are short
	}
}
