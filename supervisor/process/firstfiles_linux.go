package process

import (
	"maps"
	"os"
	"strconv"
	"sync"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// firstFiles remembers the regular files that processes had open when they were seen first. A process inherits the
// lease of its family, so it holds none that was not among them. Reading the descriptors of all foreign processes at
// each reading would cost more than all the rest.
type firstFiles struct {
	mu    sync.Mutex
	known map[int]filesOf // by PID
}

type filesOf struct {
	start uint64
	files []identity.FileID
}

// mostFiles bounds the descriptors that are remembered of a process. Those of a process with more are read each time.
const mostFiles = 64

var seenFiles = firstFiles{known: map[int]filesOf{}}

// of returns the files of a process; none if its descriptors cannot be read.
func (f *firstFiles) of(pid int, s procfs.Stat, buf *[]byte) []identity.FileID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.known[pid]; ok && known.start == s.StartTicks {
		return known.files
	}
	folder, open, err := procfs.Descriptors(pid, buf)
	if err != nil {
		return nil
	}
	var files []identity.FileID
	for _, n := range open {
		if id, regular, ok := procfs.FileBehind(folder + "/fd/" + strconv.Itoa(n)); ok && regular {
			files = append(files, id)
		}
	}
	// A child of this process has the descriptors of this process until its execve.
	if len(files) <= mostFiles && s.PPID != os.Getpid() {
		f.known[pid] = filesOf{s.StartTicks, files}
	}
	return files
}

// keep forgets all processes but those in stats.
func (f *firstFiles) keep(stats map[int]procfs.Stat) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.known, func(pid int, known filesOf) bool { return stats[pid].StartTicks != known.start })
}
