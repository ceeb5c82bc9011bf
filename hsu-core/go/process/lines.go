package process

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/core-tools/hsu-core/go/logging"
)

// maxLine bounds the memory that a process can take by never ending a line.
const maxLine = 16 << 20

// logLines logs each line of r, without its line end and never as a format, until r ends or fails. What
// stands after the last line end is a line too. A line of longest bytes and more, in steps of the reader's
// buffer, comes in pieces.
func logLines(r io.Reader, longest int, logf logging.LogFunc) {
	in := bufio.NewReader(r) // 4 KiB: there is one for every process
	var long []byte          // the beginning of a line that did not fit in there
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
		long = nil // not kept for the next line: most are short
	}
}
