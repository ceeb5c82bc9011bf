// Package logwriter runs writers of logs for tests. A writer is the binary of the test once more.
package logwriter

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	envPath    = "LOG_WRITER_PATH"
	envName    = "LOG_WRITER_NAME"
	envOffsets = "LOG_WRITER_OFFSETS"
	envBurst   = "LOG_WRITER_BURST"
)

// Writer describes a writer.
type Writer struct {
	Path    string // of the log, which exists
	Name    string // is given to the function that makes the lines
	Offsets bool   // writes without O_APPEND
	Burst   int    // writes so many lines without a pause, and no more; 0 means that it writes until it is stopped
}

// Main must be called first in TestMain. In a writer it writes the lines and never returns. It pauses after some lines:
// without a pause it would write a gigabyte a second, and more than a rotator on a busy machine can copy.
func Main(line func(writer string, n int) []byte, pauseAfter int) {
	if os.Getenv(envPath) == "" {
		return
	}
	n, err := write(line, pauseAfter)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, n)
	os.Exit(0)
}

// write writes lines until standard input is closed, and returns their number.
func write(line func(writer string, n int) []byte, pauseAfter int) (int, error) {
	flag := os.O_WRONLY | os.O_APPEND
	if os.Getenv(envOffsets) == strconv.FormatBool(true) {
		flag = os.O_WRONLY
	}
	f, err := os.OpenFile(os.Getenv(envPath), flag, 0)
	if err != nil {
		return 0, err
	}
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	burst, _ := strconv.Atoi(os.Getenv(envBurst))
	for n := 1; ; n++ {
		if burst > 0 && n > burst {
			<-closed
		}
		select {
		case <-closed:
			return n - 1, nil
		default:
		}
		if burst == 0 && n%pauseAfter == 0 {
			time.Sleep(time.Millisecond)
		}
		if _, err := f.Write(line(os.Getenv(envName), n)); err != nil {
			return 0, err
		}
	}
}

// Start starts the writer. The function that it returns stops the writer, and returns the number of lines that it has
// written.
func (w Writer) Start() (stop func() (int, error), err error) {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it is stopped
	cmd.Env = append(os.Environ(), envPath+"="+w.Path, envName+"="+w.Name,
		envOffsets+"="+strconv.FormatBool(w.Offsets), envBurst+"="+strconv.Itoa(w.Burst))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return sync.OnceValues(func() (int, error) {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return 0, fmt.Errorf("writer %s: %w", w.Name, err)
		}
		return strconv.Atoi(strings.TrimSpace(out.String()))
	}), nil
}
