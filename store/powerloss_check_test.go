//go:build linux && amd64

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
	bolt "go.etcd.io/bbolt"
)

// promised is the range of states that the marks before a moment allow: at least everything acknowledged, at most
// everything begun.
type promised struct {
	opened       bool
	id           string
	least, most  int             // number of the last change
	counted      int64           // minimum count without an id
	begun        int64           // maximum count without an id
	asked        map[string]bool // requests with an id that may be stored
	answered     map[string]bool // requests with an id that must be stored
	mayBeClean   bool
	copies       map[string]promised // backups, by name
	kept         *promised           // the newest backup in the state directory
	acknowledged int64               // acknowledged counts, synced or not
}

// promises computes the promises at position p from the marks before it.
func (r *recording) promises(p int, mode SyncMode, base promised) (promised, error) {
	now := base
	now.copies = make(map[string]promised)
	now.asked, now.answered = maps.Clone(base.asked), maps.Clone(base.answered)
	if now.asked == nil {
		now.asked, now.answered = make(map[string]bool), make(map[string]bool)
	}
	now.acknowledged = now.counted
	attempts := make(map[string]promised)
	for _, m := range r.marks {
		if m.at >= p {
			break
		}
		what, arg, _ := strings.Cut(m.text, " ")
		var err error
		n := 0
		switch what {
		case "change?", "change!":
			_, err = fmt.Sscan(arg, &n)
		case "open!":
			var found promised
			_, err = fmt.Sscan(arg, &found.id, &found.least, &found.counted)
			if now.opened && now.id != found.id {
				err = fmt.Errorf("the master's id was %s and is %s", now.id, found.id)
			}
			if found.least < now.least || found.least > now.most || found.counted < now.counted ||
				found.counted > now.begun {
				err = fmt.Errorf("opened at %q, want change %d to %d, count %d to %d",
					arg, now.least, now.most, now.counted, now.begun)
			}
			now.opened, now.id, now.least, now.counted = true, found.id, found.least, found.counted
			now.acknowledged, now.mayBeClean = found.counted, false
		}
		if err != nil {
			return now, fmt.Errorf("mark %q: %w", m.text, err)
		}
		switch what {
		case "change?":
			now.most = max(now.most, n)
		case "change!":
			now.least = n
		case "once?":
			now.asked[arg] = true
		case "once!":
			now.answered[arg] = true
		case "count?":
			now.begun++
		case "count!":
			now.acknowledged++
			if mode == SyncAlways {
				now.counted++
			}
		case "interval?", "backup?", "keep?":
			attempts[arg] = now
		case "restore?":
			now.least = min(now.least, now.copies[arg].least)
		case "restore!":
			now.least, now.most, now.mayBeClean = now.copies[arg].least, now.copies[arg].most, false
		case "interval!":
			now.counted = attempts[""].acknowledged
		case "backup!":
			now.copies[arg] = attempts[arg]
		case "keep!":
			kept := attempts[arg]
			now.kept = &kept
		case "close?":
			now.mayBeClean = true
		case "close!":
			now.counted = now.acknowledged
		}
	}
	return now, nil
}

// verdict describes the content found in a state.
type verdict struct {
	err     error
	change  int
	count   int64 // without an id
	results []string
	id      string
	clean   bool
	newer   bool               // it had the next schema before it was opened
	backups map[string]verdict // by path
}

// judge opens the files that a power cut leaves and caches the verdicts. Several goroutines use it.
type judge struct {
	temp  string             // a directory on a fast file system
	next  bool               // play the release with the next schema
	known []records.Snapshot // the registry after each change

	mu      sync.Mutex
	seen    map[uint64]func() verdict
	backups map[uint64]func() verdict
	cuts    int // number of power cuts judged
}

func newJudge(t *testing.T, next bool) *judge {
	return &judge{
		temp: inMemory(t), next: next, known: registries(t, 40),
		seen: make(map[uint64]func() verdict), backups: make(map[uint64]func() verdict),
	}
}

// look opens the state in f, or returns the earlier verdict on identical files.
func (j *judge) look(f diskImage) verdict {
	sum := f.sum()
	j.mu.Lock()
	j.cuts++
	see, ok := j.seen[sum]
	if !ok {
		see = sync.OnceValue(func() verdict { return j.open(f) })
		j.seen[sum] = see
	}
	j.mu.Unlock()
	return see()
}

// number returns the number of the change that the snapshot contains as its last.
func (j *judge) number(s records.Snapshot) (int, error) {
	n := lastChange(s)
	if n < 0 || n >= len(j.known) || !sameRegistry(s, j.known[n]) {
		return 0, fmt.Errorf("the registry is none that ever was: %+v", s)
	}
	return n, nil
}

// open opens the state twice: as the first master after the power cut and as the one after that.
func (j *judge) open(f diskImage) (out verdict) {
	defer func() {
		if p := recover(); p != nil {
			out.err = fmt.Errorf("panic: %v", p)
		}
	}()
	root, err := os.MkdirTemp(j.temp, "")
	if err != nil {
		return verdict{err: err}
	}
	defer func() { _ = os.RemoveAll(root) }()
	if err := f.write(root); err != nil {
		return verdict{err: err}
	}
	dir := filepath.Join(root, stateName)
	before, err := ReadSnapshot(dir)
	read := err == nil
	if _, newer := errors.AsType[*records.NewerSchemaError](err); newer && j.next {
		out.newer = true
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return verdict{err: fmt.Errorf("read: %w", err)}
	}
	if read {
		problems, err := Check(dir)
		if err == nil && !problems.OK() {
			err = fmt.Errorf("%v", problems)
		}
		if err != nil {
			return verdict{err: fmt.Errorf("check: %w", err)}
		}
	}
	out.backups = make(map[string]verdict)
	for path, content := range f {
		folder := filepath.Base(filepath.Dir(path))
		replaced := strings.Contains(path, statedir.DatabaseName+statefile.ReplacedInfix)
		if content != nil && (folder == copiesName || folder == statedir.BackupsName || replaced) &&
			!strings.HasSuffix(path, statefile.TempSuffix) {
			out.backups[path] = j.lookAtBackup(content)
		}
	}
	for i := range 2 {
		again, s, err := j.openOnce(dir, i > 0)
		if err != nil {
			out.err = fmt.Errorf("open number %d: %w", i+1, err)
			return out
		}
		if i == 0 {
			out.change, out.count, out.id = again.change, again.count, again.id
			out.clean, out.results = again.clean, again.results
		}
		if again.change != out.change || again.count != out.count || again.id != out.id ||
			!slices.Equal(again.results, out.results) {
			out.err = fmt.Errorf("at the first open %+v, at the second %+v", out, again)
		}
		if read && (!reflect.DeepEqual(s.Workers, before.Workers) || !slices.Equal(s.Events, before.Events) ||
			s.Processed != before.Processed || s.Results != before.Results) {
			out.err = fmt.Errorf("read without opening it was %+v, opened %+v", before, s)
		}
	}
	return out
}

// openOnce opens the state and closes it. If use is set, it also writes to it.
func (j *judge) openOnce(dir string, use bool) (out verdict, s records.Snapshot, err error) {
	steps := migrations.All
	if j.next {
		steps = oneMoreBucket()
	}
	db, err := open(dir, Options{MaxEvents: eventsKept}, seams{steps: steps})
	if err != nil {
		return out, s, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if s, err = db.Snapshot(); err != nil {
		return out, s, err
	}
	out.count, out.id, out.clean = plain(s), db.MasterID(), db.self.Found.CleanShutdown
	if err := db.flow.View(func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketRequests).ForEach(func(id, _ []byte) error {
			out.results = append(out.results, string(id))
			return nil
		})
	}); err != nil {
		return out, s, err
	}
	if out.change, err = j.number(s); err != nil || !use {
		return out, s, err
	}
	ctx := context.Background()
	err = errors.Join(db.Apply(ctx, nthChange(out.change+1)...), db.AddProcessed(ctx, 1))
	if db.Processed() != s.Processed+1 {
		err = errors.Join(err, fmt.Errorf("count %d after one more than %d", db.Processed(), s.Processed))
	}
	for _, id := range out.results {
		if again := onceNow(db, resultOf(id, "again")); !errors.Is(again, ErrDuplicate) {
			err = errors.Join(err, fmt.Errorf("request %s, sent again: %w", id, again))
		}
	}
	return out, s, err
}

// lookAtBackup reads a backup as a state.
func (j *judge) lookAtBackup(content []byte) verdict {
	sum := diskImage{statedir.DatabaseName: content}.sum()
	j.mu.Lock()
	see, ok := j.backups[sum]
	if !ok {
		see = sync.OnceValue(func() (out verdict) {
			dir, err := os.MkdirTemp(j.temp, "")
			if err != nil {
				return verdict{err: err}
			}
			defer func() { _ = os.RemoveAll(dir) }()
			if err := (diskImage{statedir.DatabaseName: content}).write(dir); err != nil {
				return verdict{err: err}
			}
			s, err := ReadSnapshot(dir)
			if err != nil {
				return verdict{err: err}
			}
			out.change, out.err = j.number(s)
			out.count, out.id = plain(s), s.Meta.MasterID
			return out
		})
		j.backups[sum] = see
	}
	j.mu.Unlock()
	return see()
}

// check compares the verdict with the promises.
func (j *judge) check(f verdict, want promised) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.err != nil {
		return f.err
	}
	if f.change < want.least || f.change > want.most {
		fail("the registry is that of change %d, want %d (acknowledged) to %d (begun)", f.change, want.least, want.most)
	}
	if f.count < want.counted || f.count > want.begun {
		fail("the count is %d, want %d (acknowledged) to %d (begun)", f.count, want.counted, want.begun)
	}
	for id := range want.answered {
		if !slices.Contains(f.results, id) {
			fail("%s was acknowledged, and its result is gone", id)
		}
	}
	for _, id := range f.results {
		if !want.asked[id] {
			fail("%s was never asked", id)
		}
	}
	if want.opened && f.id != want.id {
		fail("the master's id is %s and was %s", f.id, want.id)
	}
	if f.clean && !want.mayBeClean {
		fail("it looks like a clean shutdown")
	}
	old := 0 // number of copies with the previous schema
	for path, b := range f.backups {
		name := filepath.Base(path)
		if b.err != nil {
			fail("backup %s: %w", path, b.err)
		}
		if p, ok := want.copies[name]; ok && (b.change < p.least || b.count < p.counted) {
			fail("backup %s has change %d and count %d, want %d and %d at least",
				path, b.change, b.count, p.least, p.counted)
		}
		if filepath.Base(filepath.Dir(path)) == statedir.BackupsName && b.err == nil {
			old++
		}
	}
	for name := range want.copies {
		if _, ok := f.backups[filepath.Join(copiesName, name)]; !ok {
			fail("backup %s is gone", name)
		}
	}
	if want.kept != nil && !slices.ContainsFunc(slices.Collect(maps.Values(f.backups)), func(b verdict) bool {
		return b.change >= want.kept.least && b.count >= want.kept.counted
	}) {
		fail("the last backup is gone")
	}
	if f.newer && old == 0 {
		fail("it was migrated and there is no copy of what it was before")
	}
	return errors.Join(errs...)
}
