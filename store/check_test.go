package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// goodWorker returns a worker without contradictions.
func goodWorker(id, token string, pid, port int) records.Worker {
	w := fullWorker(id)
	w.Status, w.Port = records.StatusRunning, port
	w.Instance.Token, w.Instance.PID, w.Instance.Port = token, pid, port
	return w
}

// soundState returns a state that was closed in order, with four running workers, one of them without a
// port.
func soundState(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db,
		records.PutWorker(goodWorker("worker-0", strings.Repeat("a", 32), 100, 40000)),
		records.PutWorker(goodWorker("worker-1", strings.Repeat("b", 32), 101, 40001)),
		records.PutWorker(goodWorker("worker-2", strings.Repeat("c", 32), 102, 40002)),
		records.PutWorker(records.Worker{
			ID: "worker-3", Unit: "unit", Desired: records.DesiredStopped, Status: records.StatusStopped,
		}),
		records.PutWorker(goodWorker("portless-0", strings.Repeat("d", 32), 103, 0)),
		records.AppendEvent(records.Event{Type: "x"}))
	add(t, db, 5)
	if _, err := db.Backup(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	return copyTree(t, dir)
}

func TestCheckFindsNothingWrongWithASoundState(t *testing.T) {
	dir := soundState(t)
	remove(t, filepath.Join(dir, statedir.LockName))
	// The state is a copy, so its record names another directory.
	setMeta(t, dir, func(m *records.Meta) { m.StateDir, _ = DirID(dir) })
	before := tree(t, dir)
	p, err := Check(dir)
	if err != nil || len(p) > 0 || !p.OK() {
		t.Errorf("%v, %v", p, err)
	}
	if after := tree(t, dir); after != before {
		t.Error("the check has changed something")
	}
	for _, path := range append(backupsIn(t, dir), filepath.Join(dir, statedir.DatabaseName)) {
		if p, err := CheckFile(path); err != nil || len(p) > 0 {
			t.Errorf("%s: %v, %v", path, p, err)
		}
	}
}

func setMeta(t *testing.T, dir string, edit func(*records.Meta)) {
	t.Helper()
	change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
		m, err := records.TablesOf(tx).Meta()
		if err != nil {
			return err
		}
		edit(&m)
		mut := records.PutMeta(m)
		return errors.Join(mut.Check(), mut.Apply(tx, 10))
	})
}

// setWorker edits a record in a way that no store would write it.
func setWorker(id string, edit func(*records.Worker)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
			s, err := records.TablesOf(tx).Snapshot()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(s.Workers, func(w records.Worker) bool { return w.ID == id })
			if i < 0 {
				return fmt.Errorf("there is no %s", id)
			}
			edit(&s.Workers[i])
			mut := records.PutWorker(s.Workers[i])
			return errors.Join(mut.Check(), mut.Apply(tx, 10))
		})
	}
}

// Each possible fault is planted separately.
func TestCheckFindsWhatIsPlanted(t *testing.T) {
	put := func(bucket []byte, key, value string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
				return tx.Bucket(bucket).Put([]byte(key), []byte(value))
			})
		}
	}
	file := func(name string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			overwrite(t, path, change(b))
		}
	}
	gone := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { remove(t, filepath.Join(dir, name)) }
	}
	made := func([]byte) []byte { return []byte("x") }
	for what, c := range map[string]struct {
		plant    func(t *testing.T, dir string)
		severity Severity
		where    string
		words    string
	}{
		"a page spoilt": {
			file(statedir.DatabaseName, spoil),
			SeverityError, statedir.DatabaseName, "page",
		},
		"a database cut off": {
			file(statedir.DatabaseName, func(b []byte) []byte { return b[:5000] }),
			SeverityError, statedir.DatabaseName, "multiple",
		},
		"a foreign file": {
			file(statedir.DatabaseName, made),
			SeverityError, statedir.DatabaseName, "meta page",
		},
		"no database": {
			gone(statedir.DatabaseName),
			SeverityError, statedir.DatabaseName, "missing",
		},
		"one meta page spoilt": {
			file(statedir.DatabaseName, func(b []byte) []byte { b[60] ^= 1; return b }),
			SeverityError, statedir.DatabaseName, "meta page 0",
		},
		"a page in use is free": {
			file(statedir.DatabaseName, freeRoot),
			SeverityError, statedir.DatabaseName, "in use and free",
		},
		"a page is lost": {
			file(statedir.DatabaseName, loseFreePages),
			SeverityError, statedir.DatabaseName, "bbolt's own check",
		},
		"a record spoilt": {
			put(migrations.BucketWorkers, "worker-1", "\xff\xff"),
			SeverityError, "workers/worker-1", "cannot be read",
		},
		"an event spoilt": {
			put(migrations.BucketEvents, "\x00\x00\x00\x00\x00\x00\x00\x01", "\xff\xff"),
			SeverityError, "events/1", "cannot be read",
		},
		"the count spoilt": {
			put(migrations.BucketCounters, "processed_count", "x"),
			SeverityError, "counters/processed_count", "cannot be read",
		},
		"the own record spoilt": {
			put(migrations.BucketMeta, "record", "\xff\xff"),
			SeverityError, "meta/record", "cannot be read",
		},
		"one token of two": {
			setWorker("worker-1", func(w *records.Worker) { w.Instance.Token = strings.Repeat("a", 32) }),
			SeverityError, "workers/worker-1", "the token " + strings.Repeat("a", 32) + ", which worker-0 has too",
		},
		"one port of two": {
			setWorker("worker-2", func(w *records.Worker) { w.Port, w.Instance.Port = 40001, 40001 }),
			SeverityError, "workers/worker-2", "the port 40001, which worker-1 has too",
		},
		"one process of two": {
			setWorker("worker-2", func(w *records.Worker) { w.Instance.PID = 100 }),
			SeverityError, "workers/worker-2", "which worker-0 has too",
		},
		"a PID without proof": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.Proof = identity.ProofNone }),
			SeverityError, "workers/worker-0", "without a proof",
		},
		"a proof without inode": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.Inode = 0 }),
			SeverityError, "workers/worker-0", "inode",
		},
		"a proof without a time": {
			setWorker("worker-0", func(w *records.Worker) {
				w.Instance.Proof, w.Instance.StartTicks = identity.ProofStartTimeToken, 0
			}),
			SeverityError, "workers/worker-0", "start time",
		},
		"a PID without its boot": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.BootID = "" }),
			SeverityError, "workers/worker-0", "boot",
		},
		"running without process": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance = nil }),
			SeverityError, "workers/worker-0", "no process is recorded",
		},
		"running without PID": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.PID = 0 }),
			SeverityError, "workers/worker-0", "the PID is not recorded",
		},
		"stopped with a process": {
			setWorker("worker-0", func(w *records.Worker) { w.Status = records.StatusStopped }),
			SeverityError, "workers/worker-0", "it is stopped, and process 100",
		},
		"failed with a process": {
			setWorker("worker-0", func(w *records.Worker) { w.Status = records.StatusFailed }),
			SeverityError, "workers/worker-0", "it is failed, and process 100",
		},
		"a token that is none": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.Token = "x" }),
			SeverityError, "workers/worker-0", "token",
		},
		"a process without token": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.Token = "" }),
			SeverityError, "workers/worker-0", "token",
		},
		"a process without port": {
			setWorker("worker-0", func(w *records.Worker) { w.Instance.Port = 0 }),
			SeverityError, "workers/worker-0", "no port, and the worker 40000",
		},
		"a port that dangles": {
			setWorker("worker-0", func(w *records.Worker) { w.Port = 1 }),
			SeverityError, "workers/worker-0", "port 40000, and the worker 1",
		},
		"a process of no start": {
			setWorker("worker-0", func(w *records.Worker) { w.Incarnation = 0 }),
			SeverityError, "workers/worker-0", "none was ever started",
		},
		"the counter spoilt": {
			file(statedir.CounterName, made),
			SeverityError, statedir.CounterName, "bytes",
		},
		"a copy spoilt": {
			spoilCopy,
			SeverityError, statedir.CounterName, "checksum",
		},
		"an old database": {
			file(statedir.CounterName, func([]byte) []byte { return counterOf(6) }),
			SeverityError, statedir.CounterName, "old copy",
		},
		"an old counter": {
			file(statedir.CounterName, func([]byte) []byte { return counterOf(4) }),
			SeverityNote, statedir.CounterName, "larger one",
		},
		"no counter": {
			gone(statedir.CounterName),
			SeverityNote, statedir.CounterName, "whole count",
		},
		"no counter after a crash": {func(t *testing.T, dir string) {
			setMeta(t, dir, func(m *records.Meta) { m.CleanShutdown = false })
			gone(statedir.CounterName)(t, dir)
		}, SeverityError, statedir.CounterName, "may be short"},
		"no id": {
			gone(statedir.MasterIDName),
			SeverityError, statedir.MasterIDName, "missing",
		},
		"an id spoilt": {
			file(statedir.MasterIDName, made),
			SeverityError, statedir.MasterIDName, "UUID",
		},
		"another's id": {
			file(
				statedir.MasterIDName, func([]byte) []byte { return []byte("8a9b3c1d-0000-4000-8000-000000000001\n") },
			),
			SeverityError, statedir.MasterIDName, "another master",
		},
		"a backup spoilt": {
			func(t *testing.T, dir string) { overwrite(t, backupsIn(t, dir)[0], []byte("x")) },
			SeverityError, "backups/state-", "meta page",
		},
		"a temporary file": {
			file(statedir.DatabaseName+statefile.TempSuffix, made),
			SeverityNote, statedir.DatabaseName + statefile.TempSuffix, "crash",
		},
		"and one of a backup": {
			file("backups/"+statedir.DatabaseName+statefile.TempSuffix, made),
			SeverityNote, "backups/" + statedir.DatabaseName + statefile.TempSuffix, "crash",
		},
		"a file kept aside": {
			file(statedir.DatabaseName+statefile.DamagedInfix+"x", made),
			SeverityNote, statedir.DatabaseName + statefile.DamagedInfix + "x", "kept aside",
		},
		"a file replaced": {
			file(statedir.DatabaseName+statefile.ReplacedInfix+"x", made),
			SeverityNote, statedir.DatabaseName + statefile.ReplacedInfix + "x", "replaced",
		},
		"a count that is short": {
			func(t *testing.T, dir string) {
				setMeta(t, dir, func(m *records.Meta) { m.CountShortSince = testTime })
			},
			SeverityNote, "counters/processed_count", "may be short since",
		},
		"another folder's": {
			func(t *testing.T, dir string) { setMeta(t, dir, func(m *records.Meta) { m.StateDir.Inode++ }) },
			SeverityNote, statedir.DatabaseName, "another folder",
		},
		"a bucket of others": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("strange"))
				return err
			})
		}, SeverityNote, "strange", "no such bucket"},
	} {
		dir := soundState(t)
		setMeta(t, dir, func(m *records.Meta) { m.StateDir, _ = DirID(dir) })
		c.plant(t, dir)
		p, err := Check(dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !slices.ContainsFunc(p, func(p Problem) bool {
			return p.Severity == c.severity && strings.HasPrefix(p.Where, c.where) && strings.Contains(p.What, c.words)
		}) {
			t.Errorf("%s: not found in %+v", what, p)
		}
		if p.OK() != (c.severity == SeverityNote) {
			t.Errorf("%s: ok is %t with %+v", what, p.OK(), p)
		}
		if len(p) > 2 { // at most one consequence of the fault besides the fault
			t.Errorf("%s: found more than that: %+v", what, p)
		}
	}
}

// freeRoot puts a page in use on the freelist.
func freeRoot(b []byte) []byte {
	m, err := boltfile.OpenImage(strings.NewReader(string(b)), int64(len(b)))
	if err != nil {
		panic(err)
	}
	p := b[m.Meta.Freelist*4096:]
	order.PutUint16(p[10:], 1)
	order.PutUint64(p[16:], m.Meta.Root)
	return b
}

// loseFreePages makes pages that are neither in use nor free.
func loseFreePages(b []byte) []byte {
	m, err := boltfile.OpenImage(strings.NewReader(string(b)), int64(len(b)))
	if err != nil {
		panic(err)
	}
	p := b[m.Meta.Freelist*4096:]
	if order.Uint16(p[10:]) == 0 {
		panic("there are no free pages")
	}
	order.PutUint16(p[10:], 0)
	return b
}

func counterOf(count int64) []byte {
	b := make([]byte, counterSize)
	counterfile.Copy{Sequence: 1, Tally: counterfile.Tally{Processed: count - 1}}.Put(b, time.Time{})
	counterfile.Copy{Sequence: 2, Tally: counterfile.Tally{Processed: count}}.Put(b[copyDistance:], time.Time{})
	return b
}

func TestCheckNeedsAStateThatNobodyHolds(t *testing.T) {
	if _, err := Check(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a state: %v", err)
	}
	dir := soundState(t)
	db := openTest(t, dir, Options{})
	var locked *LockedError
	if _, err := Check(dir); !errors.As(err, &locked) {
		t.Errorf("under a master: %v", err)
	}
	// While a master runs, CheckLive checks a backup together with the other files of the directory.
	path := filepath.Join(t.TempDir(), "live")
	if err := backUpTo(db, path); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(dir, statedir.DatabaseName+statefile.DamagedInfix+"x"), nil)
	p, err := CheckLive(dir, path)
	if err != nil || !p.OK() || len(p) != 2 { // the other problem is that the state is a copy
		t.Errorf("live: %+v, %v", p, err)
	}
	mustClose(t, db)
	var newer *records.NewerSchemaError
	setVersion(t, filepath.Join(dir, statedir.DatabaseName), 9)
	if _, err := Check(dir); !errors.As(err, &newer) || newer.Found != 9 {
		t.Errorf("of a newer release: %v", err)
	}
	setVersion(t, filepath.Join(dir, statedir.DatabaseName), byte(migrations.Current()))
}

// Whatever the files contain, a check returns a list of problems.
func TestCheckOfADamagedStateNeitherPanicsNorGivesUp(t *testing.T) {
	from := soundState(t)
	dir := copyTree(t, from)
	content := readFile(t, filepath.Join(from, statedir.DatabaseName))
	severities := map[bool]int{}
	damageOf(t, content, pick(t, 499, 1, 1), func(what string, damaged []byte) {
		overwrite(t, filepath.Join(dir, statedir.DatabaseName), damaged)
		p, err := Check(dir)
		var newer *records.NewerSchemaError
		if err != nil && !errors.As(err, &newer) {
			t.Errorf("%s: %v", what, err)
		}
		severities[p.OK()]++
	})
	if severities[true] == 0 || severities[false] == 0 {
		t.Errorf("ok and not ok: %v, want some of each", maps.All(severities))
	}
}
