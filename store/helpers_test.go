package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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

// openTest opens the state in dir. At the end of the test, the state is closed and the invariants of its files are
// checked.
func openTest(t testing.TB, dir string, opts Options) *DB {
	t.Helper()
	return openSeams(t, dir, opts, seams{steps: migrations.All})
}

func openSeams(t testing.TB, dir string, opts Options, s seams) *DB {
	t.Helper()
	db, err := open(dir, opts, s)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		checkFiles(t, dir)
	})
	return db
}

// folded returns the counts in state.db.
func folded(t testing.TB, db *DB) (count counterfile.Tally) {
	t.Helper()
	if err := db.flow.View(func(tx *bolt.Tx) (err error) {
		count, err = records.TablesOf(tx).Tally()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return count
}

// checkFiles checks the invariants of a state that no process has open.
func checkFiles(t testing.TB, dir string) records.Snapshot {
	t.Helper()
	path := filepath.Join(dir, statedir.DatabaseName)
	f, img, err := boltfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.Check(true), img.Damaged, f.Close()); err != nil {
		t.Fatalf("pages of %s: %v", path, err)
	}
	h, err := boltfile.OpenReadOnly(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	err = h.View(func(tx *bolt.Tx) (err error) {
		for e := range tx.Check() {
			err = errors.Join(err, e)
		}
		return err
	})
	if err := errors.Join(err, h.Close()); err != nil {
		t.Errorf("bbolt's check of %s: %v", path, err)
	}
	s, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if len(s.Bad) > 0 {
		t.Errorf("bad records: %v", s.Bad)
	}
	if leftover, _ := filepath.Glob(filepath.Join(dir, "*"+statefile.TempSuffix)); len(leftover) > 0 {
		t.Errorf("left over: %v", leftover)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s: %v, %v", path, fi.Mode(), err)
	}
	return s
}

// copyState copies the files of a closed state into a new directory.
func copyState(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// tree lists a directory: names, sizes, modes, times of change and content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&out, path, fi.Size(), fi.Mode(), fi.ModTime().UnixNano())
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%x\n", b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// logTo returns a logger that writes to buf. Read buf only after the store is closed.
func logTo(buf *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(buf, nil)) }

var testTime = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

// fullWorker returns a worker with a value in every field.
func fullWorker(id string) records.Worker {
	return records.Worker{
		ID: id, Unit: "unit",
		Desired: records.DesiredRunning, Status: records.StatusUnhealthy, Reason: "no answer to 3 pings",
		Instance: &records.Instance{
			Token: "00112233445566778899aabbccddeeff",
			Process: identity.Process{
				PID: 4712, Inode: 1 << 40, StartTicks: 987654321,
				BootID: "5c7e1f9e-0000-4000-8000-000000000001", PIDNamespace: 4026531836,
				Proof: identity.ProofPidfdInode,
			},
			Port: 40001, ExeHash: strings.Repeat("ab", 32), Started: testTime,
			Lease: identity.FileID{Device: 66305, Inode: 1234}, UID: 1000,
		},
		Incarnation: 7, SpecHash: "spec", Restarts: 6,
		History: records.RestartHistory{
			Backoff: 200 * time.Millisecond, Spent: []time.Duration{time.Second, time.Minute}, ReadyClock: time.Hour,
			ReadySince: 5 * time.Hour, RetryAt: 6 * time.Hour, BootID: "5c7e1f9e-0000-4000-8000-000000000001",
		},
		LastExit: &identity.Exit{Signal: 9, Source: identity.ExitPidfd, At: testTime.Add(time.Second)},
		Outdated: true, Port: 40001,
	}
}

// put applies mutations that must succeed.
func put(t testing.TB, db *DB, muts ...records.Mutation) {
	t.Helper()
	if err := db.Apply(t.Context(), muts...); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

// backUpTo writes a backup to path, as the command "state backup" does.
func backUpTo(db *DB, path string) error {
	_, err := SaveBackup(path, true, func(f *os.File) error { return db.WriteBackup(f) })
	return err
}

// inspect checks every page and decodes every record of a backup.
func inspect(path string) (Summary, error) {
	f, _, sum, err := openBackup(path)
	if err != nil {
		return Summary{}, err
	}
	return sum, f.Close()
}

// add counts n requests, which must succeed.
func add(t testing.TB, db *DB, n int64) {
	t.Helper()
	if err := db.AddProcessed(t.Context(), n); err != nil {
		t.Fatalf("count: %v", err)
	}
}

func snapshot(t testing.TB, db *DB) records.Snapshot {
	t.Helper()
	s, err := db.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return s
}

func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func ids(s records.Snapshot) []string {
	var out []string
	for _, w := range s.Workers {
		out = append(out, w.ID)
	}
	return out
}
