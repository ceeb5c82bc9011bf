//go:build linux && amd64

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

func init() { children["powerloss"] = playScript }

const (
	scriptEnv = "HSU_STORE_TEST_SCRIPT" // the words to play; see actor
	nextEnv   = "HSU_STORE_TEST_NEXT"   // act as a release with the next schema
	retryEnv  = "HSU_STORE_TEST_RETRY"  // retry failed operations
)

// eventsKept is MaxEvents in these tests. It is small, so that events are dropped too.
const eventsKept = 5

// actor is the recorded child. It makes a mark before and after each operation: "change? 4" before the fourth
// change, "change! 4" after that was acknowledged.
type actor struct {
	dir    string // the state directory
	copies string // a directory for backups
	opts   Options
	steps  migrations.List
	retry  bool
	db     *DB
	// unsynced is set while a count was written and no sync has begun since.
	unsynced atomic.Bool
	change   int
	asked    int // number of requests with an id
	copy     int
}

func playScript() {
	dir := os.Getenv(childDirEnv)
	a := actor{
		dir: dir, copies: filepath.Join(strings.TrimSuffix(dir, stateName), copiesName), opts: childOptions(),
		steps: migrations.All, retry: os.Getenv(retryEnv) != "",
	}
	a.opts.MaxEvents = eventsKept
	if os.Getenv(nextEnv) != "" {
		a.steps = oneMoreBucket()
	}
	for word := range strings.FieldsSeq(os.Getenv(scriptEnv)) {
		a.play(word)
	}
}

// Paths in the recorded directory. The directory for backups exists from the start; the child creates the state
// directory and its parent.
const (
	copiesName = "copies"
	stateName  = "lib/state"
)

// oneMoreBucket is a schema that does not exist yet.
func oneMoreBucket() migrations.List {
	return append(slices.Clone(migrations.All), migrations.Step{Buckets: [][]byte{bucketNew}})
}

func (a *actor) play(word string) {
	ctx := context.Background()
	switch word {
	case "open":
		a.act("open", "", a.openState)
	case "change":
		a.change++
		a.act("change", strconv.Itoa(a.change), func() error { return a.db.Apply(ctx, nthChange(a.change)...) })
	case "count":
		a.act("count", "1", func() error { return a.db.AddProcessed(ctx, 1) })
	case "burst":
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 3 {
					a.play("count")
				}
			})
		}
		a.play("change")
		a.play("change")
		wg.Wait()
	case "once":
		a.asked++
		a.once(a.asked)
	case "again": // the last request, which is already counted
		a.act(word, "", func() error {
			err := onceNow(a.db, askedResult(a.asked))
			if err == nil {
				return errors.New("it was counted twice")
			} else if errors.Is(err, ErrDuplicate) {
				return nil
			}
			return err
		})
	case "mixed": // requests with and without ids at the same time, and changes
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 2 {
					a.play("count")
				}
			})
		}
		for range 2 {
			a.asked++
			n := a.asked
			wg.Go(func() { a.once(n) })
		}
		a.play("change")
		a.play("once")
		wg.Wait()
	case "interval":
		// If nothing is left to sync, the committer has at least begun the last sync, and it answers after that
		// sync.
		a.act("interval", "", func() error {
			for deadline := time.Now().Add(
				10 * time.Second,
			); a.unsynced.Load() && a.db.Writable() == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					return errors.New("the count is not synced")
				}
			}
			return a.db.Alive(ctx)
		})
	case "backup":
		a.copy++
		name := fmt.Sprintf("copy-%d.db", a.copy)
		a.act("backup", name, func() error { return backUpTo(a.db, filepath.Join(a.copies, name)) })
	case "keep":
		a.act("keep", "", func() error {
			_, err := a.db.Backup()
			return err
		})
	case "compact":
		a.act("compact", "", func() error {
			_, err := Compact(a.dir)
			return err
		})
	case "restore":
		a.act("restore", "copy-1.db", func() error {
			_, err := Restore(a.dir, filepath.Join(a.copies, "copy-1.db"), RestoreOptions{})
			return err
		})
	case "close":
		say("close?")
		if err := a.db.Close(); err == nil {
			say("close!")
		} else if !a.retry {
			give(word, err)
		}
	case "die":
		// Let the committer finish its own work first: if a call is cut off, it is unknown whether it was done. The
		// second answer comes after the work that was due after the first.
		for range 2 {
			if a.db != nil {
				_ = a.db.Alive(context.Background())
			}
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	default:
		a.sneak(word)
	}
}

// once counts the nth request that has an id.
func (a *actor) once(n int) {
	a.act("once", askedResult(n).ID, func() error {
		err := onceNow(a.db, askedResult(n))
		if errors.Is(err, ErrDuplicate) {
			give("once", err) // an earlier attempt failed but was counted
		}
		return err
	})
}

// askedResult returns the nth result, some of which take several pages.
func askedResult(n int) records.Result {
	return resultOf(fmt.Sprint("request-", n), strings.Repeat("x", 1+n%3*5000))
}

// sneak changes the state's files in ways that the recorder does not know.
func (a *actor) sneak(word string) {
	path := filepath.Join(a.dir, statedir.MasterIDName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		give(word, err)
	}
	switch word {
	case "sneak-link":
		err = os.Link(path, path+".2")
	case "sneak-copy":
		var to *os.File
		if to, err = os.Create(path + ".2"); err == nil {
			_, err = io.Copy(to, f) // uses copy_file_range
		}
	case "sneak-map":
		_, err = unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	case "sneak-dup":
		_, err = unix.Dup(int(f.Fd()))
	case "sneak-child":
		_, err = os.StartProcess("/proc/self/exe", nil, &os.ProcAttr{})
	default:
		err = errors.New("unknown word")
	}
	if err != nil {
		give(word, err)
	}
}

// act performs an operation, and repeats it if it may fail.
func (a *actor) act(what, arg string, do func() error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		say(what + "? " + arg)
		err := do()
		if err == nil {
			if what != "open" {
				say(what + "! " + arg)
			}
			return
		}
		if !a.retry || time.Now().After(deadline) ||
			(what == "change" || what == "count" || what == "once" || what == "again") &&
				!errors.Is(err, ErrUnavailable) {
			give(what, err)
		}
	}
}

func (a *actor) openState() error {
	a.unsynced.Store(false) // a count of an earlier run is synced, or was made anew, by the start
	db, err := open(a.dir, a.opts, seams{steps: a.steps, at: func(moment string) error {
		switch moment {
		case string(crashpoint.Count):
			a.unsynced.Store(true)
		case string(crashpoint.CountSync), crashpoint.Repair.After():
			a.unsynced.Store(false)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	// The state may have been opened although nothing could be written. It then is as before this start, which has
	// not been recorded yet.
	for deadline := time.Now().Add(20 * time.Second); db.Writable() != nil && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
	s, err := db.Snapshot()
	if err = errors.Join(err, db.Writable()); err != nil {
		return errors.Join(err, db.Close())
	}
	a.db, a.change = db, lastChange(s)
	say(fmt.Sprintf("open! %s %d %d", db.MasterID(), a.change, plain(s)))
	return nil
}

// plain returns the number of requests counted without an id: each request with an id has a result.
func plain(s records.Snapshot) int64 { return s.Processed - int64(s.Results) }

// say makes a mark in the recording.
func say(text string) {
	if _, err := syscall.Write(markFD, []byte(text)); err != nil {
		give("say "+text, err)
	}
}

func give(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}

// nthChange returns the nth change of the registry. The last event identifies the registry after it.
func nthChange(n int) []records.Mutation {
	w := fullWorker(fmt.Sprintf("worker-%d", n%4))
	w.Incarnation, w.Port = uint64(n), 40000+n
	w.Instance.Token, w.Instance.PID, w.Instance.Port = fmt.Sprintf("%032x", n), 4000+n, 40000+n
	w.Instance.Inode, w.Instance.Lease.Inode = uint64(n), uint64(n)
	// Use several pages sometimes, so that the file has overflow pages and grows.
	w.Reason = strings.Repeat("reason ", n%3*n%5*400)
	muts := []records.Mutation{
		records.PutWorker(w), records.AppendEvent(
			records.Event{Time: testTime, Worker: w.ID, Type: "change", Detail: strconv.Itoa(n)},
		),
	}
	if n%5 == 0 {
		muts = append(muts, records.DeleteWorker(fmt.Sprintf("worker-%d", (n+1)%4)))
	}
	return muts
}

// lastChange returns the number of the last change in a snapshot, 0 for none.
func lastChange(s records.Snapshot) int {
	for _, e := range slices.Backward(s.Events) {
		if n, err := strconv.Atoi(e.Detail); err == nil {
			return n
		}
	}
	return 0
}

// sameRegistry reports whether a snapshot has the registry of want. The event of a restored backup may have pushed
// out another event.
func sameRegistry(s, want records.Snapshot) bool {
	others := func(e records.Event) bool { return e.Type == eventtype.FromBackup }
	rest := slices.DeleteFunc(slices.Clone(s.Events), others)
	pushed := len(want.Events) - len(rest)
	if pushed < 0 || pushed > len(s.Events)-len(rest) {
		return false
	}
	return len(s.Bad) == 0 && reflect.DeepEqual(s.Workers, want.Workers) && slices.Equal(rest, want.Events[pushed:])
}

// registries returns the registry after each of n changes, as an undisturbed store shows it.
func registries(t *testing.T, n int) []records.Snapshot {
	t.Helper()
	db := openTest(t, t.TempDir(), Options{MaxEvents: eventsKept})
	all := []records.Snapshot{snapshot(t, db)}
	for i := 1; i <= n; i++ {
		put(t, db, nthChange(i)...)
		s := snapshot(t, db)
		if slices.ContainsFunc(all, func(other records.Snapshot) bool { return sameRegistry(s, other) }) {
			t.Fatal("two changes lead to one registry")
		}
		all = append(all, s)
	}
	mustClose(t, db)
	return all
}
