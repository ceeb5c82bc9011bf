package process

import (
	"bytes"
	"strconv"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// TracerOf returns the PID of the process that traces another one, as a debugger does, or 0 if none is known.
func TracerOf(pid int) int {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	status, err := procfs.ReadAll(procfs.Path(pid, "status"), buf)
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nTracerPid:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	tracer, err := strconv.Atoi(string(line))
	if err != nil {
		return 0
	}
	return tracer
}
