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
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/migrations"
)

func init() { children["powerloss"] = playScript }

const (
	scriptEnv = "HSU_STORE_TEST_SCRIPT" // what to do, in words; see actor
	nextEnv   = "HSU_STORE_TEST_NEXT"   // be a release with another schema
	retryEnv  = "HSU_STORE_TEST_RETRY"  // do again what has failed
)

// eventsKept is MaxEvents here: few, so that events are dropped too.
const eventsKept = 5

// actor is the child that is recorded. Before and after each thing that it does it
// says so in a mark: "change? 4" before the fourth change, "change! 4" when that was
// acknowledged.
type actor struct {
	dir    string // the state folder
	copies string // a folder for backups
	opts   Options
	steps  migrations.List
	retry  bool
	db     *DB
	change int
	asked  int // requests with an id
	copy   int
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

// In the recorded folder: the folder of the backups is there from the start, while
// the child makes the state folder, and the one that it is in.
const (
	copiesName = "copies"
	stateName  = "lib/state"
)

// oneMoreBucket is a schema that does not exist yet.
func oneMoreBucket() migrations.List {
	return append(slices.Clone(migrations.All), func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucketNew)
		return err
	})
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
	case "again": // the last one, which is counted already
		a.act(word, "", func() error {
			err := onceNow(a.db, askedResult(a.asked))
			if err == nil {
				return errors.New("it was counted twice")
			} else if errors.Is(err, ErrDuplicate) {
				return nil
			}
			return err
		})
	case "mixed": // with ids and without at once, and changes
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
		// When nothing is left to sync, the committer is at the last sync at least, and
		// it answers when that is over.
		a.act("interval", "", func() error {
			for deadline := time.Now().Add(10 * time.Second); a.db.unsynced(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					return errors.New("the count is not synced")
				}
			}
			return a.db.Alive(ctx)
		})
	case "backup":
		a.copy++
		name := fmt.Sprintf("copy-%d.db", a.copy)
		a.act("backup", name, func() error { return a.db.Backup(filepath.Join(a.copies, name)) })
	case "keep":
		a.act("keep", "", func() error {
			_, err := a.db.BackUp()
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
		// What the committer does by itself comes to its end before: of a call that is cut off nobody can tell whether
		// it was done. The second answer comes after what was due after the first.
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
			give("once", err) // it had failed, and was counted
		}
		return err
	})
}

// askedResult is of several pages now and then.
func askedResult(n int) Result {
	return resultOf(fmt.Sprint("request-", n), strings.Repeat("x", 1+n%3*5000))
}

// sneak changes the state's files as the recorder does not know it.
func (a *actor) sneak(word string) {
	path := filepath.Join(a.dir, masterIDName)
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
			_, err = io.Copy(to, f) // copy_file_range
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

// act does something, again and again where it may fail.
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
		if !a.retry || time.Now().After(deadline) || (what == "change" || what == "count" || what == "once" || what == "again") && !errors.Is(err, ErrUnavailable) {
			give(what, err)
		}
	}
}

func (a *actor) openState() error {
	db, err := open(a.dir, a.opts, seams{steps: a.steps})
	if err != nil {
		return err
	}
	// Where it was opened though nothing could be written, it is what it was before:
	// nothing was recorded yet of this start.
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

// plain is what was counted without an id: what has one has its result.
func plain(s Snapshot) int64 { return s.Processed - int64(s.Results) }

// say leaves a mark in the recording.
func say(text string) {
	if _, err := syscall.Write(markFD, []byte(text)); err != nil {
		give("say "+text, err)
	}
}

func give(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}

// nthChange is the nth change of the registry. The registry after it is known by its
// last event.
func nthChange(n int) []Mutation {
	w := fullWorker(fmt.Sprintf("worker-%d", n%4))
	w.Incarnation, w.Port = uint64(n), 40000+n
	w.Instance.Token, w.Instance.PID, w.Instance.Port = fmt.Sprintf("%032x", n), 4000+n, 40000+n
	w.Instance.Inode, w.Instance.Lease.Inode = uint64(n), uint64(n)
	// Of several pages now and then, so that the file has overflow pages and grows.
	w.Reason = strings.Repeat("reason ", n%3*n%5*400)
	muts := []Mutation{PutWorker(w), AppendEvent(Event{Time: testTime, Worker: w.ID, Type: "change", Detail: strconv.Itoa(n)})}
	if n%5 == 0 {
		muts = append(muts, DeleteWorker(fmt.Sprintf("worker-%d", (n+1)%4)))
	}
	return muts
}

// lastChange returns the number of the last change in a snapshot, 0 for none.
func lastChange(s Snapshot) int {
	for _, e := range slices.Backward(s.Events) {
		if n, err := strconv.Atoi(e.Detail); err == nil {
			return n
		}
	}
	return 0
}

// sameRegistry tells whether a snapshot has this registry. The one event of a restored
// backup may have pushed out another.
func sameRegistry(s, want Snapshot) bool {
	others := func(e Event) bool { return e.Type == EventFromBackup }
	rest := slices.DeleteFunc(slices.Clone(s.Events), others)
	pushed := len(want.Events) - len(rest)
	if pushed < 0 || pushed > len(s.Events)-len(rest) {
		return false
	}
	return len(s.Bad) == 0 && reflect.DeepEqual(s.Workers, want.Workers) && slices.Equal(rest, want.Events[pushed:])
}

// registries are the registries after each of n changes, as a store shows them that
// nothing has happened to.
func registries(t *testing.T, n int) []Snapshot {
	t.Helper()
	db := openTest(t, t.TempDir(), Options{MaxEvents: eventsKept})
	all := []Snapshot{snapshot(t, db)}
	for i := 1; i <= n; i++ {
		put(t, db, nthChange(i)...)
		s := snapshot(t, db)
		if slices.ContainsFunc(all, func(other Snapshot) bool { return sameRegistry(s, other) }) {
			t.Fatal("two changes lead to one registry")
		}
		all = append(all, s)
	}
	mustClose(t, db)
	return all
}
