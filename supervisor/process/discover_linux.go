package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// Discover searches for processes that other programs have started. It reads the list of all processes at most once,
// and not at all if the patterns do not need it. A process of this master is never found, and neither is one that
// descends from another match. If several unrelated processes match, none is found: Discover makes no choice.
//
// Each process is opened before the evidence that counts is read, so that the evidence and the handle concern the same
// process. The caller closes the processes.
func Discover(ctx context.Context, own Own, queries []Query) []Discovery {
	found := make([]Discovery, len(queries))
	if err := checkSupport(); err != nil {
		for i := range found {
			found[i].Err = fmt.Errorf("%w: %w", ErrUnverifiable, err)
		}
		return found
	}
	s := &survey{ctx: ctx, own: own, inherits: InheritsOrphans()}
	for i, query := range queries {
		found[i] = s.find(query)
	}
	return found
}

// survey is the common part of several searches.
type survey struct {
	ctx      context.Context
	own      Own
	inherits bool            // orphans that are not this master's become its children
	all      map[int]glimpse // all processes, once they have been read
}

// glimpse is the content of the stat of a process.
type glimpse struct {
	procfs.Stat
	comm string
}

// readGlimpse returns the stat and the name of a process. It returns false for a kernel thread and for a process that
// has died.
func readGlimpse(pid int, buf *[]byte) (glimpse, bool) {
	line, err := procfs.ReadAll(procfs.Path(pid, "stat"), buf)
	if err != nil {
		return glimpse{}, false
	}
	stat, err := procfs.ParseStat(line)
	if err != nil || stat.KernelThread() || stat.Ended() && stat.Threads <= 1 {
		return glimpse{}, false
	}
	return glimpse{stat, commOf(line)}, true
}

// processes returns all processes.
func (s *survey) processes() (map[int]glimpse, error) {
	if s.all != nil {
		return s.all, nil
	}
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	all := make(map[int]glimpse)
	err := procfs.WalkProcesses(func(pids []int) bool {
		for _, pid := range pids {
			if g, living := readGlimpse(pid, buf); living {
				all[pid] = g
			}
		}
		return s.ctx.Err() == nil
	})
	if err = errors.Join(err, context.Cause(s.ctx)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	s.all = all
	return all, nil
}

// parent returns the parent of a process, or 0.
func (s *survey) parent(pid int) int {
	if s.all != nil {
		return s.all[pid].PPID
	}
	return parentNow(pid)
}

func parentNow(pid int) int {
	stat, err := procfs.ReadStat(pid)
	if err != nil {
		return 0
	}
	return stat.PPID
}

func (s *survey) find(query Query) Discovery {
	matches, err := s.matches(query.Pattern)
	if err != nil {
		return Discovery{Err: err}
	}
	strangers := slices.DeleteFunc(slices.Clone(matches), func(c match) bool { return s.isOurs(c.pid) })
	if len(strangers) == 0 {
		return Discovery{Err: nothing(query.Pattern, matches)}
	}
	top, below := unrelated(strangers, s.parent)
	if last := query.Last; len(top) > 1 && last.PID != 0 {
		i := slices.IndexFunc(strangers, func(c match) bool {
			return c.pid == last.PID && c.startTicks == last.StartTicks
		})
		if i >= 0 {
			top, below = strangers[i:i+1], nil
		}
	}
	if len(top) > 1 {
		return Discovery{Err: fmt.Errorf("%w: %d processes match %s, which do not descend from each other: %s",
			ErrUnverifiable, len(top), query.Pattern, list(top))}
	}
	return s.open(query.Pattern, top[0], below)
}

// nothing returns the error of a search that has found no process, or only those of this master.
func nothing(p Pattern, ours []match) error {
	if len(ours) > 0 {
		return fmt.Errorf("%w: %s is a process of this master: process %s", ErrUnverifiable, p, list(ours))
	}
	if p.Port != 0 {
		return fmt.Errorf("%w: nothing listens on port %d", ErrGone, p.Port)
	}
	return fmt.Errorf("%w: no %s", ErrGone, p)
}

// isOurs reports whether a process is this master, or belongs to one of its instances.
func (s *survey) isOurs(pid int) bool {
	self := os.Getpid()
	leader := func(pid int) bool { return slices.Contains(s.own.Leaders, pid) }
	if pid == self || leader(pid) {
		return true
	}
	if stat, err := procfs.ReadStat(pid); err == nil && leader(stat.SID) {
		return true // a descendant whose parent has ended
	}
	if descendsFrom(pid, s.parent, func(pid int) bool { return leader(pid) || pid == self && !s.inherits }) {
		return true
	}
	h, shown := holderOf(pid)
	return shown && s.own.MasterID != "" && h.MasterID == s.own.MasterID && h.StateDir == s.own.StateDir
}

// holderOf returns the worker that the environment of a process names.
func holderOf(pid int) (h Holder, shown bool) {
	text, read := patiently(pid, func() []byte {
		buf := make([]byte, 32<<10)
		environ, _ := procfs.ReadEnviron(pid, &buf)
		return environ
	})
	if !read {
		return Holder{}, false
	}
	return parseHolder(text)
}

// patiently returns the result of read, or false if that takes too long: see stallPatience. read may go on meanwhile,
// so it must not share its buffer.
func patiently(pid int, read func() []byte) ([]byte, bool) {
	if isStalled(pid) {
		return nil, false
	}
	result := make(chan []byte, 1)
	go func() {
		result <- read()
		setStalled(pid, false)
	}()
	patience := time.NewTimer(stallPatience)
	defer patience.Stop()
	select {
	case text := <-result:
		return text, true
	case <-patience.C:
		setStalled(pid, true)
		// It may have ended between the two.
		select {
		case text := <-result:
			setStalled(pid, false)
			return text, true
		default:
			return nil, false
		}
	}
}

// open opens the process and confirms that it matches, and that those that were not counted descend from it.
func (s *survey) open(p Pattern, c match, below []match) Discovery {
	proc, err := openPID(c.pid, learn)
	if err == nil {
		if err = s.confirm(p, proc, c, below); err != nil {
			_ = proc.Close()
		}
	}
	if err != nil {
		return Discovery{Err: err}
	}
	g, _ := readGlimpse(c.pid, new(make([]byte, 4096)))
	return Discovery{Process: proc, Name: strings.ToValidUTF8(g.comm, "\uFFFD"), Started: startTime(c.startTicks)}
}

func (s *survey) confirm(p Pattern, proc *Process, c match, below []match) error {
	if proc.id.StartTicks != c.startTicks {
		return fmt.Errorf("%w: process %d has just ended", ErrGone, c.pid)
	}
	var err error
	if p.Systemd != "" {
		// The unit had this main process before it was opened, and has it now: it is not another one with its PID.
		err = s.own.CheckMain(s.ctx, p.Systemd, c.pid)
	} else {
		err = proc.Matches(p)
	}
	if err != nil {
		return err
	}
	for _, b := range below {
		stat, err := procfs.ReadStat(b.pid)
		if err != nil || stat.StartTicks != b.startTicks {
			continue // gone
		}
		if !descendsFrom(b.pid, parentNow, func(pid int) bool { return pid == c.pid }) {
			return fmt.Errorf("%w: process %d does not descend from process %d any more", ErrUnverifiable, b.pid, c.pid)
		}
	}
	if !proc.alive() {
		return fmt.Errorf("%w: process %d has just ended", ErrGone, c.pid)
	}
	return nil
}

// startTime returns when a process started, by the present wall clock.
func startTime(ticks uint64) time.Time {
	return time.Now().Add(time.Duration(ticks)*procfs.Tick - BootTime()) //nolint:gosec // 2^63 ns are 292 years
}

// matches returns the processes that match, without proof.
func (s *survey) matches(p Pattern) ([]match, error) {
	switch {
	case p.PIDFile != "":
		pid, err := readPIDFile(p.PIDFile)
		if err != nil {
			return nil, err
		}
		stat, err := procfs.ReadLife(pid.pid)
		if err != nil || stat.Ended() {
			return nil, fmt.Errorf("%w: %s names process %d, which does not exist", ErrGone, p.PIDFile, pid.pid)
		}
		return []match{{pid.pid, stat.StartTicks}}, nil
	case p.Name != "":
		return s.named(p)
	case p.Systemd != "":
		pid, err := s.own.mainOf(s.ctx, p.Systemd)
		if err != nil {
			return nil, err
		}
		stat, err := procfs.ReadLife(pid)
		if err != nil || stat.Ended() {
			return nil, fmt.Errorf("%w: process %d of %s has just ended", ErrGone, pid, p.Systemd)
		}
		return []match{{pid, stat.StartTicks}}, nil
	default:
		return s.listening(p.Port)
	}
}

func (s *survey) named(p Pattern) ([]match, error) {
	all, err := s.processes()
	if err != nil {
		return nil, err
	}
	var found []match
	var hidden error
	for pid, g := range all {
		matches, err := g.matches(p)
		switch {
		case err != nil:
			hidden = err
		case matches:
			found = append(found, match{pid, g.StartTicks})
		}
	}
	if len(found) == 0 && hidden != nil {
		return nil, hidden
	}
	slices.SortFunc(found, func(a, b match) int { return a.pid - b.pid })
	return found, nil
}

// matches reports whether the process has the name and the arguments. It reads no arguments of a process with another
// name.
func (g glimpse) matches(p Pattern) (bool, error) {
	shown := shownProgram{comm: g.comm}
	if g.comm != p.Name {
		shown.exe, _ = os.Readlink(procfs.Path(g.PID, "exe"))
	}
	long := len(p.Name) > maxComm && g.comm == p.Name[:maxComm]
	if !long && !shown.isNamed(p.Name) {
		return false, nil
	}
	if long || len(p.Args) > 0 {
		var read bool
		if shown.args, read = readArgs(g.PID); !read {
			return false, fmt.Errorf("%w: the arguments of process %d cannot be read", ErrUnverifiable, g.PID)
		}
	}
	return shown.isNamed(p.Name) && shown.hasArgs(p.Args), nil
}

// readArgs returns the arguments of a process. It returns false if they cannot be read now.
func readArgs(pid int) ([]string, bool) {
	text, read := patiently(pid, func() []byte {
		tid, err := procfs.LivingThread(pid)
		if err != nil {
			return nil
		}
		buf := make([]byte, 4<<10)
		text, _ := procfs.ReadAll(procfs.TaskPath(pid, tid, "cmdline"), &buf)
		return text
	})
	if !read {
		return nil, false
	}
	return strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00"), true
}

// listening returns the processes that listen on a TCP port, including those that have inherited the listener.
func (s *survey) listening(port int) ([]match, error) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	listeners, err := sockets.Listeners(s.ctx, port)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	if len(listeners) == 0 {
		return nil, nil
	}
	all, err := s.processes()
	if err != nil {
		return nil, err
	}
	var found []match
	owned := map[uint64]bool{}
	for pid, g := range all {
		look := newOwnerSearch(listeners, buf)
		look.look(pid)
		if len(look.missing) == len(listeners) {
			continue
		}
		found = append(found, match{pid, g.StartTicks})
		for _, l := range listeners {
			if look.has(l) {
				owned[l.Inode] = true
			}
		}
	}
	for _, l := range listeners {
		if !owned[l.Inode] {
			return nil, hiddenOwner(port, l)
		}
	}
	slices.SortFunc(found, func(a, b match) int { return a.pid - b.pid })
	return found, nil
}

// hiddenOwner is the error about a listener whose process this process cannot see.
func hiddenOwner(port int, l sockets.Socket) error {
	return fmt.Errorf("%w: port %d has a listener of user %d, whose process cannot be seen from here: "+
		"only root, and that user itself, can", ErrUnverifiable, port, l.UID)
}

// pidFile is the content of a PID file, with the evidence about it.
type pidFile struct {
	pid     int
	changed time.Time
	uid     uint32
	mode    fs.FileMode
}

// readPIDFile reads a PID file. It does not block, and follows no symbolic link: a folder such as /run/db may belong to
// the user of the program, which must not lead a master that runs as root to other files.
func readPIDFile(path string) (f pidFile, err error) {
	file, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("%w: there is no %s", ErrGone, path)
	}
	if err != nil {
		return f, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	defer func() { _ = file.Close() }() // only read, so nothing is lost
	info, err := file.Stat()
	if err != nil {
		return f, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxPIDFile))
	if err == nil {
		f.pid, err = parsePIDFile(content)
	}
	if err != nil {
		return f, fmt.Errorf("%w: read %s: %w", ErrUnverifiable, path, err)
	}
	f.changed, f.mode = info.ModTime(), info.Mode()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid = st.Uid
	}
	return f, nil
}

// Matches returns nil if the process matches the pattern now. The process was opened before, so that the evidence is
// about it. For a systemd unit, see [Own.CheckMain].
func (p *Process) Matches(pattern Pattern) error {
	// A file that is just being written, or a process inside execve, does not count against the process.
	const tries, pause = 3, 20 * time.Millisecond
	var err error
	for try := range tries {
		if try > 0 {
			time.Sleep(pause)
		}
		if err = p.matches(pattern); err == nil || !p.alive() {
			break
		}
	}
	if !p.alive() {
		return fmt.Errorf("%w: process %d has ended", ErrGone, p.id.PID)
	}
	return err
}

func (p *Process) matches(pattern Pattern) error {
	switch {
	case pattern.PIDFile != "":
		return p.isNamedBy(pattern.PIDFile)
	case pattern.Name != "":
		g, living := readGlimpse(p.id.PID, new(make([]byte, 4096)))
		if !living {
			return fmt.Errorf("%w: process %d has ended", ErrGone, p.id.PID)
		}
		matches, err := g.matches(pattern)
		if err != nil || matches {
			return err
		}
		return fmt.Errorf("%w: process %d executes another program now: %s", ErrGone, p.id.PID,
			strings.ToValidUTF8(g.comm, "\uFFFD"))
	case pattern.Systemd != "":
		return fmt.Errorf("%w: %w", ErrUnverifiable, systemd.ErrNoAnswer)
	default:
		return p.listensOn(pattern.Port)
	}
}

// isNamedBy returns nil if the PID file names the process and is known to be about it: the process started before the
// file was written, so that it is not another one to which the kernel has given the PID of a dead one; and the file
// belongs to root, to the user of this process, or to that of the process, which could do as much by itself.
func (p *Process) isNamedBy(path string) error {
	f, err := readPIDFile(path)
	if err != nil {
		return err
	}
	if f.pid != p.id.PID {
		return fmt.Errorf("%w: %s names process %d now", ErrGone, path, f.pid)
	}
	started := startTime(p.id.StartTicks)
	if started.After(f.changed.Add(clockSlack)) {
		return fmt.Errorf("%w: %s was written at %s, before process %d started at %s: "+
			"the PID in it was that of another process, or the clock of the machine was set since",
			ErrGone, path, f.changed.Format(time.DateTime), f.pid, started.Format(time.DateTime))
	}
	var folder unix.Stat_t
	if err := unix.Stat(procfs.Path(p.id.PID, ""), &folder); err != nil {
		return fmt.Errorf("%w: process %d has ended", ErrGone, p.id.PID)
	}
	switch self := uint32(os.Geteuid()); { //nolint:gosec // a uid is 32 bits wide
	case f.uid != 0 && f.uid != self && f.uid != folder.Uid:
		return fmt.Errorf("%w: %s belongs to user %d, and process %d to user %d: only root or that user may name it",
			ErrUnverifiable, path, f.uid, f.pid, folder.Uid)
	case f.mode&0o002 != 0:
		return fmt.Errorf("%w: any user can write to %s: chmod o-w it", ErrUnverifiable, path)
	}
	return nil
}

// listensOn returns nil if the process has a listener of the port.
func (p *Process) listensOn(port int) error {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	ctx, cancel := context.WithTimeout(context.Background(), ownerPatience)
	defer cancel()
	listeners, err := sockets.Listeners(ctx, port)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	s := newOwnerSearch(listeners, buf)
	if s.look(p.id.PID); len(s.missing) == len(listeners) {
		return fmt.Errorf("%w: process %d does not listen on port %d any more", ErrGone, p.id.PID, port)
	}
	return nil
}
