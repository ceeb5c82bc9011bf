//go:build unix

package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// ReplaceableError is returned by the checks for the first component of a path that a user other than root, and
// other than the user of the program, can replace or write to.
type ReplaceableError struct {
	Path  string // of the component
	Owner uint32
	Mode  fs.FileMode
	User  uint32 // may own it too
}

func (e *ReplaceableError) Error() string {
	switch {
	case e.User != 0 && e.Owner != 0 && e.Owner != e.User:
		return fmt.Sprintf("%s belongs to user %d (mode %s), who could have user %d execute another program: "+
			"chown it to root or to user %d", e.Path, e.Owner, e.Mode, e.User, e.User)
	case e.User != 0:
		return fmt.Sprintf("%s can be written by users other than root and %d (owner %d, mode %s): chmod go-w it",
			e.Path, e.User, e.Owner, e.Mode)
	case e.Owner != 0:
		return fmt.Sprintf("%s belongs to user %d (mode %s), who could have a root master use another file: "+
			"chown root it, or run hsu-master as that user", e.Path, e.Owner, e.Mode)
	}
	return fmt.Sprintf("%s can be written by users other than root (owner root, mode %s): "+
		"chmod go-w it, or run hsu-master as another user", e.Path, e.Mode)
}

// CheckProgram returns a [*ReplaceableError] if a user other than root could make this process, which runs as
// root, execute another program by this path. It checks every folder and link on the way, and the file. It returns
// nil if this process does not run as root, because it then has no privileges that its user does not have.
func CheckProgram(path string) error { return CheckProgramOf(path, 0) }

// CheckProgramOf is like [CheckProgram] for a program that this process executes as a user, which may replace it.
func CheckProgramOf(path string, user uint32) error {
	if !asRoot() {
		return nil
	}
	_, err := check(path, user)
	return err
}

// CheckFolder returns a [*ReplaceableError] if a user other than root could put files into a folder that this
// process, which runs as root, uses, or could replace that folder. For a missing folder it checks the path up to
// the last existing parent.
func CheckFolder(path string) error {
	_, err := checkFolder(path)
	return err
}

// checkFolder is like [CheckFolder] and reports whether it has checked an existing folder.
func checkFolder(path string) (exists bool, err error) {
	if !asRoot() {
		return false, nil
	}
	last, err := check(path, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil // nothing can be made there, or only by root
	case err != nil:
		return false, err
	// In a sticky folder other users cannot replace root's files, but they can make files.
	case last.mode()&groupOrOthersWrite != 0:
		return false, last.replaceable(0)
	}
	return last.is(syscall.S_IFDIR), nil
}

// check checks the components of path, which root and a user may own, and returns the last one.
func check(path string, user uint32) (component, error) {
	last, links, err := walk(path, user)
	if err != nil || links == 0 {
		return last, err
	}
	end, err := status("stat", syscall.Stat, path)
	if err != nil {
		return last, err
	}
	if end.Dev != last.stat.Dev || end.Ino != last.stat.Ino { // a link in /proc, which leads elsewhere than its text
		return last, fmt.Errorf("%s cannot be checked: name the file by its own path", path)
	}
	return last, nil
}

// CheckEntry returns an error if a user other than root and the user of this process could put another file at path,
// or has done so. In a sticky folder nobody else can replace a file of theirs; sticky reports that the folder is one,
// so that everyone can take the name when the file is removed.
func CheckEntry(path string) (sticky bool, err error) {
	user := os.Geteuid()
	folder, _, err := walk(filepath.Dir(path), uint32(user)) //nolint:gosec // a UID has 32 bits
	if e, replaceable := errors.AsType[*ReplaceableError](err); replaceable && !rootIsUnmapped() {
		return false, fmt.Errorf("other users can change %s (owner %d, mode %s): "+
			"choose a folder that only root and user %d can change", e.Path, e.Owner, e.Mode, user)
	} else if err != nil && !replaceable {
		return false, err
	}
	sticky = folder.mode()&syscall.S_ISVTX != 0
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return sticky, nil
	} else if err != nil {
		return sticky, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != user && stat.Uid != 0 {
		return sticky, fmt.Errorf("%s belongs to user %d: remove it, or choose another path", path, stat.Uid)
	}
	return sticky, nil
}

// rootIsUnmapped reports whether the owners of the system's folders are not known in this user namespace.
func rootIsUnmapped() bool {
	root, err := status("lstat", syscall.Lstat, "/")
	return err == nil && root.Uid != 0 && !mapped(root.Uid)
}

const groupOrOthersWrite = 0o022

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// component is a file, folder or link on a path.
type component struct {
	path string
	stat syscall.Stat_t
}

// mode returns the permissions and the bits beside them, as the kernel has them.
func (c component) mode() uint32 { return uint32(c.stat.Mode) &^ syscall.S_IFMT } //nolint:unconvert // 16 bits on macOS

// is reports whether the component is of a type, such as S_IFDIR.
func (c component) is(kind uint32) bool {
	return uint32(c.stat.Mode)&syscall.S_IFMT == kind //nolint:unconvert // 16 bits on macOS
}

// status is [os.Stat] or [os.Lstat], as get and op say, without memory for the result: each start of a worker checks
// tens of components.
func status(op string, get func(string, *syscall.Stat_t) error, path string) (stat syscall.Stat_t, err error) {
	for {
		err := get(path, &stat)
		switch {
		case err == nil:
			return stat, nil
		case !errors.Is(err, syscall.EINTR): // which a file system in user space may return
			return stat, &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
}

// walk follows path as the kernel does, checks every component, and returns the last one and the number of links on the
// way.
func walk(path string, user uint32) (at component, links int, err error) {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return component{}, 0, err
		}
		path = here + "/" + path // not cleaned: ".." after a link leads elsewhere
	}
	at, err = visit("/", user)
	for rest := names(path); err == nil && len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at, err = visit(filepath.Dir(at.path), user)
			continue
		}
		var next component
		if next, err = visit(filepath.Join(at.path, name), user); err != nil {
			break
		}
		if !next.is(syscall.S_IFLNK) {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return component{}, links, &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		var target string
		if target, err = os.Readlink(next.path); err != nil {
			break
		}
		rest = append(names(target), rest...)
		if filepath.IsAbs(target) {
			at, err = visit("/", user)
		}
	}
	return at, links, err
}

func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// visit returns the component at path. It returns an error unless only root and the user can replace the component
// and, unless it is a sticky folder, change its entries.
func visit(path string, user uint32) (component, error) {
	stat, err := status("lstat", syscall.Lstat, path)
	if err != nil {
		return component{}, err
	}
	c := component{path, stat}
	switch {
	case stat.Uid != 0 && stat.Uid != user:
		return component{}, c.replaceable(user)
	case c.is(syscall.S_IFLNK), c.is(syscall.S_IFDIR) && c.mode()&syscall.S_ISVTX != 0:
		return c, nil // the mode of a link has no meaning
	case c.mode()&groupOrOthersWrite != 0:
		return component{}, c.replaceable(user)
	}
	return c, nil
}

func (c component) replaceable(user uint32) error {
	return &ReplaceableError{Path: c.path, Owner: c.stat.Uid, Mode: fileMode(c), User: user}
}

// fileMode returns the mode of a component for people.
func fileMode(c component) fs.FileMode {
	mode := fs.FileMode(c.mode()).Perm()
	for bit, in := range map[fs.FileMode]bool{
		fs.ModeDir:        c.is(syscall.S_IFDIR),
		fs.ModeSymlink:    c.is(syscall.S_IFLNK),
		fs.ModeNamedPipe:  c.is(syscall.S_IFIFO),
		fs.ModeSocket:     c.is(syscall.S_IFSOCK),
		fs.ModeDevice:     c.is(syscall.S_IFBLK) || c.is(syscall.S_IFCHR),
		fs.ModeCharDevice: c.is(syscall.S_IFCHR),
		fs.ModeSticky:     c.mode()&syscall.S_ISVTX != 0,
		fs.ModeSetuid:     c.mode()&syscall.S_ISUID != 0,
		fs.ModeSetgid:     c.mode()&syscall.S_ISGID != 0,
	} {
		if in {
			mode |= bit
		}
	}
	return mode
}

// asRoot reports whether this process has more privileges than the users whose files it may open. Root of a user
// namespace that does not contain the machine's root has only the privileges of the user that made the namespace.
func asRoot() bool {
	return os.Geteuid() == 0 && rootOfMachine()
}

// rootOfMachine reports whether root of this process's user namespace may be the machine's root.
var rootOfMachine = sync.OnceValue(func() bool {
	root, err := status("lstat", syscall.Lstat, "/")
	return err != nil || root.Uid == 0 || mapped(root.Uid)
})

// mapped reports whether a UID belongs to this process's user namespace. The kernel shows all users without a
// mapping as one UID.
func mapped(uid uint32) bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		var first, outside, count uint32
		if n, _ := fmt.Sscan(line, &first, &outside, &count); n == 3 && uid >= first && uid-first < count {
			return true
		}
	}
	return false
}
