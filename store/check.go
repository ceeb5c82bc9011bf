package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// Severity is the severity of a [Problem].
type Severity string

// The values of Severity.
const (
	// SeverityError means that something is damaged or contradicts something else.
	SeverityError Severity = "error"
	// SeverityNote means that something is worth knowing but is not a fault of the state.
	SeverityNote Severity = "note"
)

// Problem is one finding of a check.
type Problem struct {
	Severity Severity `json:"severity"`
	Where    string   `json:"where"` // a file, or a record such as "workers/worker-0"
	What     string   `json:"what"`
}

// Problems are the findings of a check, errors first.
type Problems []Problem

// OK reports whether none of the problems is an error.
func (p Problems) OK() bool {
	return !slices.ContainsFunc(p, func(p Problem) bool { return p.Severity == SeverityError })
}

func (p *Problems) fail(where, format string, args ...any) {
	*p = append(*p, Problem{SeverityError, where, fmt.Sprintf(format, args...)})
}

func (p *Problems) note(where, format string, args ...any) {
	*p = append(*p, Problem{SeverityNote, where, fmt.Sprintf(format, args...)})
}

func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(strings.Compare(string(a.Severity), string(b.Severity)), strings.Compare(a.Where, b.Where))
	})
	return p
}

// Check looks for everything that can be wrong with the state in dir while no master runs. It changes nothing.
// Check returns an error only if the check could not be made: fs.ErrNotExist if there is no state, a [LockedError],
// a [NewerSchemaError], or an error of the operating system.
func Check(dir string) (Problems, error) {
	if err := anyState(dir); err != nil {
		return nil, err
	}
	release, err := statedir.ReadLock(dir, statedir.DyingFor)
	if err != nil {
		return nil, err
	}
	defer release()
	var p Problems
	c, err := p.file(filepath.Join(dir, statedir.DatabaseName), statedir.DatabaseName)
	if err != nil {
		return nil, err
	}
	p.folder(dir, c, false)
	return p.sorted(), nil
}

// anyState returns an error if there is nothing to check.
func anyState(dir string) error {
	var first error
	for _, name := range []string{statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return nil
		}
		first = cmp.Or(first, err)
	}
	return fmt.Errorf("no state to check: %w", first)
}

// CheckFile is like [Check], for a database that no process has open, such as a backup.
func CheckFile(path string) (Problems, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("check the backup: %w", err)
	}
	var p Problems
	if _, err := p.file(path, filepath.Base(path)); err != nil {
		return nil, err
	}
	return p.sorted(), nil
}

// CheckLive is like [Check] while a master runs. Instead of state.db, it checks the backup at path, which the
// master has just made.
func CheckLive(dir, path string) (Problems, error) {
	var p Problems
	c, err := p.file(path, statedir.DatabaseName)
	if err != nil {
		return nil, err
	}
	p.folder(dir, c, true)
	return p.sorted(), nil
}

// file checks a database. The returned content is nil if it cannot be read.
func (p *Problems) file(path, name string) (*records.Content, error) {
	f, size, err := statefile.Open(path)
	if _, damaged := errors.AsType[*statefile.DamagedError](err); damaged {
		p.fail(name, "%v", statefile.Cause(err))
		return nil, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		p.fail(name, "it is missing: the next start takes the newest good backup")
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check the state: %w", err)
	}
	defer func() { _ = f.Close() }()
	img, err := boltfile.OpenImage(f, size)
	if err != nil {
		p.fail(name, "%v", err)
		return nil, nil
	}
	if img.Damaged != nil {
		p.fail(name, "%v: the last change may be lost", img.Damaged)
	}
	c, err := records.ContentOf(img, migrations.Current())
	if newer, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		newer.Path = path
		return nil, err
	}
	if err != nil {
		p.fail(name, "%v", err)
		return nil, nil
	}
	if err := boltCheck(path); err != nil {
		p.fail(name, "%v", err)
	}
	p.records(c)
	return &c, nil
}

// boltCheck runs bbolt's own check. The caller must have walked the pages before: bbolt must not open an unchecked
// file.
func boltCheck(path string) error {
	h, err := boltfile.OpenReadOnly(path, readWait)
	if err != nil {
		return fmt.Errorf("open it with bbolt: %w", statefile.Cause(err))
	}
	err = h.View(func(tx *bolt.Tx) (err error) {
		for e := range tx.Check() {
			err = cmp.Or(err, e) // keep the first error only; the channel must be drained
		}
		return err
	})
	if err = errors.Join(err, h.Close()); err != nil {
		return fmt.Errorf("bbolt's own check: %w", statefile.Cause(err))
	}
	return nil
}

// records checks the records on their own.
func (p *Problems) records(c records.Content) {
	for _, key := range slices.Sorted(maps.Keys(c.Bad)) {
		p.fail(key, "it cannot be read: %v", c.Bad[key])
	}
	for _, name := range c.Strange {
		p.note(name, "this release knows no such bucket")
	}
	if since := c.Meta.CountShortSince; !since.IsZero() {
		p.note(keyName(migrations.BucketCounters, string(records.KeyProcessed)), "the count may be short since %s",
			since.Local().Format(time.RFC3339))
	}
	for _, u := range c.Units {
		if u.Retired && u.Scale != nil {
			p.fail(keyName(migrations.BucketUnits, u.Name), "it is retired, and scaled to %d", *u.Scale)
		}
	}
	for _, w := range c.Workers {
		p.worker(w)
	}
	p.shared(c.Workers, "token", func(i *records.Instance) string { return i.Token })
	p.shared(c.Workers, "port", func(i *records.Instance) string {
		if i.Port == 0 || i.OwnPort { // the end of a process frees its own port before the end is recorded
			return ""
		}
		return fmt.Sprint(i.Port)
	})
	p.shared(c.Workers, "process", func(i *records.Instance) string {
		if i.PID == 0 {
			return ""
		}
		return fmt.Sprintf("%d (boot %s, namespace %d)", i.PID, i.BootID, i.PIDNamespace)
	})
}

func keyName(bucket []byte, key string) string { return string(bucket) + "/" + key }

// shared reports values that must be unique but are used by two workers.
func (p *Problems) shared(workers []records.Worker, what string, of func(*records.Instance) string) {
	owner := make(map[string]string)
	for _, w := range workers {
		if w.Instance == nil {
			continue
		}
		value := of(w.Instance)
		if value == "" {
			continue
		}
		if other, taken := owner[value]; taken {
			p.fail(keyName(migrations.BucketWorkers, w.ID), "it has the %s %s, which %s has too", what, value, other)
			continue
		}
		owner[value] = w.ID
	}
}

// unmanaged checks the record of an unmanaged unit.
func (p *Problems) unmanaged(where string, w records.Worker) {
	switch {
	case w.Instance != nil:
		p.fail(where, "it is unmanaged, and process %d is recorded as started by a master", w.Instance.PID)
	case (w.Status == records.StatusAbsent) != (w.Found == nil):
		p.fail(where, "it is %s, and the record of its process contradicts that", w.Status)
	}
}

// worker checks a record for internal contradictions.
func (p *Problems) worker(w records.Worker) {
	where := keyName(migrations.BucketWorkers, w.ID)
	i := w.Instance
	if w.Unmanaged() {
		p.unmanaged(where, w)
		return
	}
	switch w.Status {
	case records.StatusStarting, records.StatusRunning, records.StatusUnhealthy, records.StatusStopping:
		if i == nil && w.Status != records.StatusStarting { // start.before runs before there is a process
			p.fail(where, "it is %s, and no process is recorded", w.Status)
		}
	case records.StatusStopped, records.StatusBackoff, records.StatusFailed, records.StatusCompleted,
		records.StatusWaiting, records.StatusScheduled, records.StatusAbsent:
		if i != nil {
			p.fail(where, "it is %s, and process %d is recorded", w.Status, i.PID)
		}
	}
	if i == nil {
		return
	}
	if i.PID == 0 && (w.Status == records.StatusRunning || w.Status == records.StatusUnhealthy) {
		p.fail(where, "it is %s, and the PID is not recorded", w.Status)
	}
	if w.Incarnation == 0 {
		p.fail(where, "a process is recorded, and none was ever started")
	}
	if !validToken(i.Token) {
		p.fail(where, "the token %.64q is none", i.Token)
	}
	switch {
	case i.Port == w.Port: // both are 0 if the unit has no port
	case i.OwnPort && w.Port == 0:
	case i.Port == 0:
		p.fail(where, "its process has no port, and the worker %d", w.Port)
	default:
		p.fail(where, "its process has port %d, and the worker %d", i.Port, w.Port)
	}
	if i.PID != 0 {
		p.proof(where, i)
	}
}

// proof checks that the record is sufficient to identify the process.
func (p *Problems) proof(where string, i *records.Instance) {
	switch {
	case i.Proof == identity.ProofNone:
		p.fail(where, "process %d is recorded without a proof of its identity", i.PID)
	case i.Proof == identity.ProofPidfdInode && i.Inode == 0:
		p.fail(where, "process %d is to be proven by the inode of its pidfd, which is not recorded", i.PID)
	case i.Proof == identity.ProofStartTimeToken && i.StartTicks == 0:
		p.fail(where, "process %d is to be proven by its start time, which is not recorded", i.PID)
	}
	if i.BootID == "" {
		p.fail(where, "process %d is recorded without the boot that it ran in", i.PID)
	}
}

// validToken reports whether s is 128 bits in hex.
func validToken(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// folder checks the other files of the state and whether they agree with the database. c is nil if the database
// cannot be read. live means that a master is running.
func (p *Problems) folder(dir string, c *records.Content, live bool) {
	p.counter(dir, c, live)
	p.masterID(dir, c)
	p.secretKey(dir, c)
	if c != nil {
		if here, err := DirID(dir); err == nil && c.Meta.StateDir != here &&
			c.Bad[keyName(migrations.BucketMeta, string(records.KeyMeta))] == nil {
			p.note(statedir.DatabaseName,
				"it was made in another folder: the processes that it names are left alone at the next start")
		}
	}
	for _, name := range []string{statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName} {
		for infix, why := range map[string]string{
			statefile.DamagedInfix:  "a damaged file that was kept aside",
			statefile.ReplacedInfix: "a file that was replaced",
		} {
			if kept, err := statefile.ListAside(filepath.Join(dir, name), infix); err == nil && len(kept) > 0 {
				p.note(filepath.Base(kept[0]), "%s; %s", why, removable(len(kept)))
			}
		}
	}
	if !live {
		p.leftovers(dir)
	}
	p.backups(dir)
}

func removable(n int) string {
	if n == 1 {
		return "remove it when it is not needed any more"
	}
	return fmt.Sprintf("there are %d of these, remove them when they are not needed any more", n)
}

// counter compares the counter with the database.
func (p *Problems) counter(dir string, c *records.Content, live bool) {
	count, err := counterfile.Read(filepath.Join(dir, statedir.CounterName))
	for range 3 { // the master may write the file while it is read
		if !live || err == nil && count.Damaged == nil {
			break
		}
		count, err = counterfile.Read(filepath.Join(dir, statedir.CounterName))
	}
	newest := count.Newest
	clean := c != nil && c.Meta.CleanShutdown && !live
	switch {
	case err != nil:
		p.fail(statedir.CounterName, "%v", statefile.Cause(err))
	case count.Damaged != nil:
		p.fail(statedir.CounterName, "%v: the last count may be lost", count.Damaged)
	case newest.Sequence == 0 && clean:
		p.note(statedir.CounterName, "it is missing; the database has the whole count")
	case newest.Sequence == 0:
		p.fail(statedir.CounterName, "it is missing: the count may be short")
	case c == nil || c.Countless():
	case newest.Processed < c.Processed && !live:
		p.note(statedir.CounterName, "it says %d, the database %d: the larger one counts",
			newest.Processed, c.Processed)
	case newest.Processed > c.Processed && clean:
		p.fail(statedir.CounterName,
			"it says %d, the database only %d although it was closed in order: one of them is an old copy",
			newest.Processed, c.Processed)
	}
}

func (p *Problems) masterID(dir string, c *records.Content) {
	id, err := statedir.ReadMasterID(dir)
	switch {
	case err != nil:
		p.fail(statedir.MasterIDName, "%v", statefile.Cause(err))
	case id == "":
		p.fail(statedir.MasterIDName, "it is missing: the next start takes the id of the database")
	case c != nil && c.Meta.MasterID != "" && c.Meta.MasterID != id:
		p.fail(statedir.MasterIDName, "it says %s, the database %s: it is that of another master", id, c.Meta.MasterID)
	}
}

// secretKey checks the key of the environments in the records.
func (p *Problems) secretKey(dir string, c *records.Content) {
	key, err := statedir.ReadSecretKey(dir)
	if err != nil && !errors.Is(err, statedir.ErrSecretKeyLost) {
		p.fail(statedir.SecretKeyName, "%v", err)
		return
	}
	if err != nil {
		p.note(statedir.SecretKeyName, "%v: the next start makes a new one", err)
	}
	if c == nil {
		return
	}
	outdated := 0
	for _, w := range c.Workers {
		if w.EnvironmentMAC != "" && w.SecretKey != key.ID() {
			outdated++
		}
	}
	if outdated > 0 {
		p.note(statedir.SecretKeyName, "it is not the key with which the environments of %d workers are recorded: "+
			"they count as outdated until they are started again", outdated)
	}
}

func (p *Problems) leftovers(dir string) {
	for _, pattern := range []string{
		"*" + statefile.TempSuffix, filepath.Join(statedir.BackupsName, "*"+statefile.TempSuffix),
	} {
		found, _ := filepath.Glob(filepath.Join(statedir.EscapeGlob(dir), pattern))
		for _, path := range found {
			if name, err := filepath.Rel(dir, path); err == nil {
				p.note(name, "a crash has left it; it is of no use")
			}
		}
	}
}

// backups checks the backups in the backups folder.
func (p *Problems) backups(dir string) {
	files, err := backups.List(dir)
	if err != nil {
		p.fail(statedir.BackupsName, "%v", err)
		return
	}
	for _, file := range files {
		where := filepath.Join(statedir.BackupsName, filepath.Base(file.Path))
		c, err := backups.Read(file, migrations.Current())
		switch {
		case errors.Is(err, fs.ErrNotExist): // the master has just removed it
		case err != nil:
			p.fail(where, "%v", statefile.Cause(err))
		case len(c.Bad) > 0:
			p.note(where, "%d records cannot be read, the first is %s", len(c.Bad), records.FirstBad(c.Bad))
		}
	}
}
