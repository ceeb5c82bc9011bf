package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// Infixes of the names of files that were kept.
const (
	DamagedInfix  = ".damaged-"  // as in state.db.damaged-20260203T040506.000007Z
	ReplacedInfix = ".replaced-" // likewise, for a file that an operator has replaced
)

// asideLayout is the layout of the times in the names of kept files. Such names sort by time.
const asideLayout = "20060102T150405.000000Z"

// MaxAside bounds how many damaged files of one name are kept, so that a failing disk does not fill itself up. The
// first one is kept because it shows how the damage began, the others are the newest.
const MaxAside = 8

// KeepAside renames a damaged file, so that nothing overwrites it, and returns its new name.
func (o Ops) KeepAside(path string, damage error, log *slog.Logger) (string, error) {
	aside := AsideName(path, DamagedInfix)
	err := o.Perform(crashpoint.Quarantine, func() error { return os.Rename(path, aside) })
	if err == nil {
		err = o.Perform(crashpoint.QuarantineSync, func() error { return safefile.SyncDir(filepath.Dir(path)) })
	}
	if err != nil {
		return "", fmt.Errorf("keep the damaged %s aside: %w", path, err)
	}
	log.Warn("state file damaged", "path", path, "kept", aside, "error", Cause(damage))
	o.dropAside(path, aside, log)
	return aside, nil
}

// KeepCopyAside is like KeepAside, but copies a file that is still of use.
func (o Ops) KeepCopyAside(path string, damage error, log *slog.Logger) error {
	src, _, err := Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	aside := AsideName(path, DamagedInfix)
	err = o.Replace(crashpoint.QuarantineCopy, aside, func(f *os.File) error { return CopyTo(f, src) })
	if err != nil {
		return fmt.Errorf("keep a copy of the damaged %s: %w", path, err)
	}
	log.Warn("state file partly damaged", "path", path, "kept", aside, "error", Cause(damage))
	o.dropAside(path, aside, log)
	return nil
}

// AsideName returns a name for the file at path that is not in use.
func AsideName(path, infix string) string {
	name := path + infix + time.Now().UTC().Format(asideLayout)
	for n, free := 2, name; ; n++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			return free
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

// dropAside removes kept files in excess of MaxAside. A failure is only logged: it must not prevent the start.
func (o Ops) dropAside(path, newest string, log *slog.Logger) {
	kept, err := ListAside(path, DamagedInfix)
	// The names contain the time, and the clock may have been set back since the last file was kept.
	kept = append(slices.DeleteFunc(kept, func(name string) bool { return name == newest }), newest)
	if err == nil && len(kept) > MaxAside {
		for _, old := range kept[1 : 1+len(kept)-MaxAside] {
			err = errors.Join(err, o.Perform(crashpoint.Prune, func() error { return os.Remove(old) }))
		}
	}
	if err != nil {
		log.Warn("old damaged files not removed", "path", path, "error", err)
	}
}

// ListAside returns the files kept for path under names with infix, the oldest first.
func ListAside(path, infix string) ([]string, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+infix) && !strings.HasSuffix(e.Name(), TempSuffix) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}
