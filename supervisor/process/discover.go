package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/systemd"
)

// Pattern is how a process that another program starts is found. One of PIDFile, Name, Port and Systemd
// is set.
type Pattern struct {
	PIDFile string   // a file whose first line is the PID
	Name    string   // of the program
	Args    []string // with Name: the process has all of these arguments, in this order
	Port    int      // the process listens on this TCP port
	Systemd string   // the process is the main one of this service of the system's service manager
}

// IsZero reports whether nothing is set.
func (p Pattern) IsZero() bool {
	return p.PIDFile == "" && p.Name == "" && len(p.Args) == 0 && p.Port == 0 && p.Systemd == ""
}

// Equal reports whether both find the same processes.
func (p Pattern) Equal(other Pattern) bool {
	return p.PIDFile == other.PIDFile && p.Port == other.Port && p.Systemd == other.Systemd &&
		p.Name == other.Name && slices.Equal(p.Args, other.Args)
}

// String describes the pattern: "pid file /run/db.pid", "process postgres -D /var/lib/db", "port 5432".
func (p Pattern) String() string {
	switch {
	case p.PIDFile != "":
		return "pid file " + p.PIDFile
	case p.Name != "":
		return strings.Join(append([]string{"process", p.Name}, p.Args...), " ")
	case p.Systemd != "":
		return "systemd unit " + p.Systemd
	default:
		return "port " + strconv.Itoa(p.Port)
	}
}

// Check returns an error unless exactly one way to find a process is set.
func (p Pattern) Check() error {
	ways := 0
	for _, set := range []bool{p.PIDFile != "", p.Name != "", p.Port != 0, p.Systemd != ""} {
		if set {
			ways++
		}
	}
	switch {
	case ways != 1:
		return errors.New("must have exactly one of pid_file, process, port and systemd")
	case p.Name == "" && len(p.Args) > 0:
		return errors.New("process: name is missing")
	case strings.ContainsRune(p.Name, '/'):
		return fmt.Errorf("process: name %q: must be a name without slashes", p.Name)
	case p.Port < 0 || p.Port > 65535:
		return fmt.Errorf("port %d: must be 1 to 65535", p.Port)
	case p.Systemd != "" && !strings.HasSuffix(p.Systemd, ".service"):
		return fmt.Errorf("systemd %q: must be a service, with its suffix .service", p.Systemd)
	}
	return nil
}

// Query is a pattern, and the process that it has found before, if any. If several processes match, that one is
// still the one.
type Query struct {
	Pattern
	Last identity.Process
}

// Discovery is the result of a [Query].
type Discovery struct {
	Process *Process // nil if Err is set
	Name    string   // of the program, as the process shows it
	Started time.Time
	// Err is the reason for which no process is found. It wraps [ErrGone] if none matches, and [ErrUnverifiable] if
	// that cannot be decided.
	Err error
}

// Own describes the processes of this master, which no search finds.
type Own struct {
	MasterID, StateDir string // as in the environment of the instances
	Leaders            []int  // PIDs of the instances
	// MainPID returns the main process of a systemd unit, as [systemd.Manager.MainPID] does. Without it, no search by
	// unit finds any.
	MainPID func(ctx context.Context, unit string) (int, error)
}

// CheckMain returns nil if a process is the main one of a systemd unit now. The process must be open, else another one
// may have its PID. The error wraps [ErrUnverifiable] if that cannot be known, and [ErrGone] otherwise.
func (o Own) CheckMain(ctx context.Context, unit string, pid int) error {
	now, err := o.mainOf(ctx, unit)
	if err == nil && now != pid {
		err = fmt.Errorf("%w: the main process of %s is process %d now", ErrGone, unit, now)
	}
	return err
}

// mainOf returns the main process of a systemd unit, without proof.
func (o Own) mainOf(ctx context.Context, unit string) (int, error) {
	if o.MainPID == nil {
		return 0, fmt.Errorf("%w: %w", ErrUnverifiable, systemd.ErrNoAnswer)
	}
	pid, err := o.MainPID(ctx, unit)
	switch {
	case errors.Is(err, systemd.ErrNoAnswer):
		return 0, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return pid, nil
}

// maxComm is the length to which the kernel cuts the name of a process: TASK_COMM_LEN.
const maxComm = 15

// commOf returns the name of a process from a line of /proc/PID/stat.
func commOf(line []byte) string {
	begin, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if begin < 0 || end < begin {
		return ""
	}
	return string(line[begin+1 : end])
}

// shownProgram is the program of a process, as /proc shows it.
type shownProgram struct {
	comm string   // cut to maxComm bytes, and the process can change it
	exe  string   // path of the executable; "" if this process may not read it
	args []string // with argument 0
}

// isNamed reports whether the program has a name: that of the process, of its executable, or of the script that its
// interpreter executes, if the kernel has cut the name of the process.
func (p shownProgram) isNamed(name string) bool {
	if p.comm == name || path.Base(strings.TrimSuffix(p.exe, " (deleted)")) == name {
		return true
	}
	if len(name) <= maxComm || p.comm != name[:maxComm] {
		return false
	}
	return slices.ContainsFunc(p.args[:min(2, len(p.args))], func(arg string) bool { return path.Base(arg) == name })
}

// hasArgs reports whether the arguments contain all of those wanted, in their order.
func (p shownProgram) hasArgs(wanted []string) bool {
	for _, arg := range p.args[min(1, len(p.args)):] {
		if len(wanted) > 0 && arg == wanted[0] {
			wanted = wanted[1:]
		}
	}
	return len(wanted) == 0
}

// maxPIDFile bounds the part of a PID file that is read.
const maxPIDFile = 4096

// parsePIDFile returns the PID in the first line of a PID file. Further lines are those of programs that keep more in
// it, such as PostgreSQL.
func parsePIDFile(content []byte) (int, error) {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	text := string(bytes.TrimSpace(line))
	if text == "" {
		return 0, errors.New("it is empty")
	}
	pid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("its first line is %.20q, not a PID", text)
	}
	return int(pid), nil
}

// clockSlack is how much later than its PID file a process may seem to have started: file systems keep times with a
// granularity of up to a second or more.
const clockSlack = time.Second

// match is a process that matches a pattern, before it is opened.
type match struct {
	pid        int
	startTicks uint64
}

// unrelated returns the matches that do not descend from another one, and the others. parent returns the parent of a
// process, or 0.
func unrelated(all []match, parent func(pid int) int) (top, below []match) {
	among := func(pid int) bool {
		return slices.ContainsFunc(all, func(c match) bool { return c.pid == pid })
	}
	for _, c := range all {
		if descendsFrom(c.pid, parent, among) {
			below = append(below, c)
		} else {
			top = append(top, c)
		}
	}
	return top, below
}

// maxDepth bounds the walk from a process to its ancestors, which may change meanwhile.
const maxDepth = 1024

// descendsFrom reports whether an ancestor of the process is one that is asked for.
func descendsFrom(pid int, parent func(pid int) int, asked func(pid int) bool) bool {
	for range maxDepth {
		if pid = parent(pid); pid <= 0 {
			return false
		}
		if asked(pid) {
			return true
		}
	}
	return false
}

// list describes processes for people: "12 and 14", "12, 14 and 3 more".
func list(some []match) string {
	const shown = 3
	var words []string
	for _, c := range some[:min(shown, len(some))] {
		words = append(words, strconv.Itoa(c.pid))
	}
	switch more := len(some) - len(words); {
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(words, ", "), more)
	case len(words) < 2:
		return strings.Join(words, "")
	default:
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " and " + words[last]
	}
}

// ReasonOf returns the message of an error of a search, without the sentinel that it begins with.
func ReasonOf(err error) string {
	text := err.Error()
	for _, sentinel := range []error{ErrGone, ErrUnverifiable} {
		text = strings.TrimPrefix(text, sentinel.Error()+": ")
	}
	return text
}
