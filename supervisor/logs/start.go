package logs

import (
	"bytes"
	"fmt"
	"time"
)

// startMark ends the line in a log that separates the output of two instances.
const startMark = ": started by hsu-master"

// startLine returns the line for a start of a worker, such as "2026-03-01T12:00:00Z worker-0 incarnation 3: started by
// hsu-master".
func startLine(at time.Time, worker string, incarnation uint64) string {
	return fmt.Sprintf("%s %s incarnation %d%s\n", at.UTC().Format(time.RFC3339), worker, incarnation, startMark)
}

// ParseStart reads the line of a start of the worker, with or without its newline. It returns false if the line is
// another.
func ParseStart(line []byte, worker string) (at time.Time, incarnation uint64, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if !bytes.HasSuffix(line, []byte(startMark)) {
		return time.Time{}, 0, false
	}
	stamp, _, _ := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(time.RFC3339, string(stamp))
	if err != nil {
		return time.Time{}, 0, false
	}
	if _, err := fmt.Sscanf(string(line[len(stamp):]), " "+worker+" incarnation %d", &incarnation); err != nil {
		return time.Time{}, 0, false
	}
	return at, incarnation, string(line)+"\n" == startLine(at, worker, incarnation)
}
