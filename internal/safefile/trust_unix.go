//go:build unix

package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	case last.info.Mode().Perm()&groupOrOthersWrite != 0:
		return false, last.replaceable(0)
	}
	return last.info.IsDir(), nil
}

// check checks the components of path, which root and a user may own, and returns the last one.
func check(path string, user uint32) (component, error) {
	last, err := walk(path, user)
	if err != nil {
		return last, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return last, err
	}
	if !os.SameFile(info, last.info) { // a link in /proc, which leads elsewhere than its text
		return last, fmt.Errorf("%s cannot be checked: name the file by its own path", path)
	}
	return last, nil
}

// CheckEntry returns an error if a user other than root and the user of this process could put another file at path,
// or has done so. In a sticky folder nobody else can replace a file of theirs; sticky reports that the folder is one,
// so that everyone can take the name when the file is removed.
func CheckEntry(path string) (sticky bool, err error) {
	user := os.Geteuid()
	folder, err := walk(filepath.Dir(path), uint32(user)) //nolint:gosec // a UID has 32 bits
	if e, replaceable := errors.AsType[*ReplaceableError](err); replaceable && !rootIsUnmapped() {
		return false, fmt.Errorf("other users can change %s (owner %d, mode %s): "+
			"choose a folder that only root and user %d can change", e.Path, e.Owner, e.Mode, user)
	} else if err != nil && !replaceable {
		return false, err
	}
	sticky = folder.info != nil && folder.info.Mode()&fs.ModeSticky != 0
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
	info, err := os.Lstat("/")
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid != 0 && !mapped(stat.Uid)
}

const groupOrOthersWrite = 0o022

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// component is a file, folder or link on a path.
type component struct {
	path string
	info fs.FileInfo
}

// walk follows path as the kernel does, checks every component, and returns the last one.
func walk(path string, user uint32) (component, error) {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return component{}, err
		}
		path = here + "/" + path // not cleaned: ".." after a link leads elsewhere
	}
	at, err := visit("/", user)
	links := 0
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
		if next.info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return component{}, &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
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
	return at, err
}

func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// visit returns the component at path. It returns an error unless only root and the user can replace the component
// and, unless it is a sticky folder, change its entries.
func visit(path string, user uint32) (component, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return component{}, err
	}
	c := component{path, info}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return component{}, fmt.Errorf("%s has no owner", path)
	}
	mode := info.Mode()
	switch {
	case stat.Uid != 0 && stat.Uid != user:
		return component{}, c.replaceable(user)
	case mode.Type() == fs.ModeSymlink, mode.IsDir() && mode&fs.ModeSticky != 0:
		return c, nil // the mode of a link has no meaning
	case mode.Perm()&groupOrOthersWrite != 0:
		return component{}, c.replaceable(user)
	}
	return c, nil
}

func (c component) replaceable(user uint32) error {
	e := &ReplaceableError{Path: c.path, Mode: c.info.Mode(), User: user}
	if stat, ok := c.info.Sys().(*syscall.Stat_t); ok {
		e.Owner = stat.Uid
	}
	return e
}

// asRoot reports whether this process has more privileges than the users whose files it may open. Root of a user
// namespace that does not contain the machine's root has only the privileges of the user that made the namespace.
func asRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	info, err := os.Lstat("/")
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid == 0 || mapped(stat.Uid)
}

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
