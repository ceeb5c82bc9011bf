package launcher

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/logs"
)

// envJournalStream names the stream of the journal that a program writes to, for programs that know the journal.
const envJournalStream = "JOURNAL_STREAM"

// output is where a new process writes. No output passes through the master: a worker must not die of SIGPIPE when the
// master dies.
type output struct {
	out    *os.File
	errors *os.File // of standard error, nil if it is out
	env    []string // tells the process about it
	close  func()
	// fallback is why it is the worker's file, nil if that was wanted.
	fallback error
}

// open returns the output of a process of the worker. If the journal cannot be reached, that is the worker's file: its
// log is no reason not to run a worker.
func (l *osLauncher) open(worker string, to logs.Target) (output, error) {
	if to == logs.ToInherit {
		return output{out: os.Stdout, errors: os.Stderr, env: l.inheritedStream(), close: func() {}}, nil
	}
	var f *os.File
	var fallback error
	err := crashpoint.Do(crashpoint.LogOpen, func() (err error) {
		if to == logs.ToJournal {
			if f, fallback = logs.OpenJournal(cmp.Or(l.Journal, logs.JournalSocket), worker); fallback == nil {
				return nil
			}
		}
		f, err = logs.Open(l.LogDir, worker)
		return err
	})
	if err != nil {
		return output{}, fmt.Errorf("%w: %w", ErrOwnFault, err)
	}
	o := output{out: f, fallback: fallback, close: func() { _ = f.Close() }}
	if to == logs.ToJournal && fallback == nil {
		o.env = []string{envJournalStream + "=" + logs.JournalStream(f)}
	}
	return o, nil
}

// inheritedStream returns the variable of the master's stream of the journal, if the master still writes to it.
func (l *osLauncher) inheritedStream() []string {
	if l.stream == "" || logs.JournalStream(os.Stderr) != l.stream && logs.JournalStream(os.Stdout) != l.stream {
		return nil
	}
	return []string{envJournalStream + "=" + l.stream}
}

// valueOf returns the value of a variable in an environment.
func valueOf(environ []string, name string) string {
	for _, entry := range environ {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}
