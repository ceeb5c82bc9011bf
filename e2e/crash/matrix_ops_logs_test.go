//go:build e2e && crash && linux

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/logs"
)

// Operations on the logs of workers. The trials write the lines themselves.

// rotating has a log rotated when it has grown by fewer bytes than a trial writes. No rotated file is removed.
const rotating = "    log: {max_size: 8KiB, keep: 1000}\n"

// linesOfATrial are twice as much as the size and the end of a log that stays in place.
const linesOfATrial = 400

func operationsOnLogs() []*operation {
	rotation := func(name string, onDisk bool) *operation {
		return &operation{
			name: name, file: true, further: rotating, life: 15, onDisk: onDisk,
			begin: writesLines, rest: untilCompressed, after: allLinesOnce,
		}
	}
	ops := []*operation{
		rotation("log rotation", false),
		{name: "log truncated", file: true, life: 15, begin: growsLog, rest: untilTruncationNoted},
	}
	if collapses() {
		ops = append(ops, rotation("log rotation, collapsing", true))
	}
	return ops
}

// collapses reports whether the file system of temporary files can remove blocks of a file.
func collapses() bool {
	f, err := os.CreateTemp("", "hsu-e2e")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const block = 64 << 10
	_, err = f.Write(make([]byte, 2*block))
	return err == nil && unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, block) == nil
}

// theLogged is the worker whose log the trials write.
const theLogged = "worker-0"

func (r *rig) logOf(worker string) string { return logs.Path(logs.DefaultDir(r.state), worker) }

// appendTo appends to the log of the worker, as the worker does.
func (r *rig) appendTo(text string) error {
	f, err := os.OpenFile(r.logOf(theLogged), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func writesLines(r *rig) error {
	var b strings.Builder
	for range linesOfATrial {
		r.lines++
		fmt.Fprintf(&b, "line %d %s\n", r.lines, strings.Repeat(".", 50))
	}
	return r.appendTo(b.String())
}

// untilCompressed returns nil when lines have been moved into a rotated file, and that is compressed.
func untilCompressed(_ *rig, before, now map[string]int) error {
	if now["after-log-remove"] == before["after-log-remove"] {
		return errors.New("the log is not rotated")
	}
	return nil
}

// allLinesOnce fails unless the master has each line that was written once, in order, and has completed what the one
// before had begun.
func allLinesOnce(r *rig) error {
	_, err := r.masters.await("the rotated files are compressed", func() error {
		files, err := os.ReadDir(filepath.Dir(r.logOf(theLogged)))
		i := slices.IndexFunc(files, func(f os.DirEntry) bool {
			return !strings.HasSuffix(f.Name(), ".log") && !strings.HasSuffix(f.Name(), ".gz")
		})
		if err == nil && i >= 0 {
			err = fmt.Errorf("there is %s", files[i].Name())
		}
		return err
	})
	if err != nil {
		return err
	}
	conn, err := quickDial("unix://" + string(r.admin))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := brief()
	defer cancel()
	stream, err := adminpb.NewAdminClient(conn).Logs(ctx, &adminpb.LogsRequest{Names: []string{theLogged}})
	var text bytes.Buffer
	for err == nil {
		var resp *adminpb.LogsResponse
		resp, err = stream.Recv()
		for _, t := range resp.GetTexts() {
			if t.GetNotice() != "" {
				return fmt.Errorf("a notice in place of lines: %s", t.GetNotice())
			}
			text.Write(t.GetText())
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	last := 0
	for line := range strings.Lines(text.String()) {
		n := 0
		if _, err := fmt.Sscanf(line, "line %d ", &n); err != nil {
			continue // of the worker
		}
		if n != last+1 {
			return fmt.Errorf("line %d comes after line %d", n, last)
		}
		last = n
	}
	if last != r.lines {
		return fmt.Errorf("the last line is %d, want %d", last, r.lines)
	}
	return nil
}

// shrinkEvery is longer than the time between two looks of the master at a log.
const shrinkEvery = 1200 * time.Millisecond

func growsLog(r *rig) error {
	r.shrunk = time.Now()
	return r.appendTo(strings.Repeat("to be lost\n", 1000))
}

// untilTruncationNoted truncates the log, as a program may, until the master has recorded it.
func untilTruncationNoted(r *rig, before, now map[string]int) error {
	if now["after-log-event"] > before["after-log-event"] {
		return nil
	}
	if time.Since(r.shrunk) > shrinkEvery {
		r.shrunk = time.Now()
		info, err := os.Stat(r.logOf(theLogged))
		if err == nil {
			err = os.Truncate(r.logOf(theLogged), info.Size()/2)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("no truncation is recorded")
}
