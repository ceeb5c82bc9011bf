package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){"hsu-master": main})
}

// checked runs all tests, and verifies that they leak nothing.
type checked struct{ m *testing.M }

func (c checked) Run() int { return leaks.Run(c.m, os.Stderr) }

// The scripts show commands as a user types them, with their output. They need no long-running process; scripts
// that do are below e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("..", "..", "testdata", "script"),
		Setup: setUp,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     exits,
			"mkstate":   command(1, makeState),
			"mkbackup":  command(1, makeBackup),
			"golden":    golden,
			"hold":      hold,
			"twist":     command(1, contradict),
			"offers":    command(1, offer),
			"failed":    command(1, fail),
			"scaled":    command(1, scale),
			"schema":    command(2, setSchema),
			"flip":      command(2, flip),
			"cut":       command(2, cut),
			"remember":  remember,
			"unchanged": unchanged,
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Geteuid() == 0, nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// setUp gives each script a port that another process holds, one that none does, and a state folder that is separate
// from those of this host.
func setUp(env *testscript.Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = l.Close() })
	env.Setenv("BUSY_PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Setenv("FREE_PORT", strconv.Itoa(free.Addr().(*net.TCPAddr).Port))
	if err := free.Close(); err != nil {
		return err
	}
	env.Setenv("HSU_MASTER_STATE_DIR", filepath.Join(env.WorkDir, "st"))
	env.Setenv("LONG", strings.Repeat("a", 90))
	return nil
}

func command(args int, do func(args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, given []string) {
		if neg || len(given) != args {
			ts.Fatalf("want %d arguments and no !", args)
		}
		given[0] = ts.MkAbs(given[0])
		ts.Check(do(given))
	}
}

// exits runs a program and checks its exit code. The message of a failure must be as documented: on stderr, in
// lower case, without a panic.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](ts.Exec(args[1], args[2:]...)); ok {
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	stderr := ts.ReadFile("stderr")
	message, isError := strings.CutPrefix(stderr, "hsu-master: error: ")
	switch {
	case strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine "):
		ts.Fatalf("a panic")
	case want == 0:
	case !isError && !strings.Contains(stderr, "\nhsu-master: error: "):
		ts.Fatalf("no error message")
	case isError && message[:1] != strings.ToLower(message[:1]):
		ts.Fatalf("the message does not begin in lower case")
	}
}

// makeState writes the state of a master that was stopped and had two workers.
func makeState(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	for _, id := range []string{"worker-0", "worker-1"} {
		record := records.PutWorker(records.Worker{
			ID: id, Unit: "worker", Desired: records.DesiredRunning, Status: records.StatusStopped, Incarnation: 1,
		})
		if err := db.Apply(context.Background(), record,
			records.AppendEvent(records.Event{Worker: id, Type: "stopped"})); err != nil {
			return err
		}
	}
	if err := db.AddProcessed(context.Background(), 7); err != nil {
		return err
	}
	return db.Close()
}

// makeBackup backs up the state into its folder, as a running master does.
func makeBackup(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	_, err = db.Backup()
	return errors.Join(err, db.Close())
}

// golden writes the database of the release with the given schema version.
func golden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: golden VERSION FOLDER")
	}
	content, err := os.ReadFile(filepath.Join("..", "..", "testdata", "schema-v"+args[0], "state.db"))
	ts.Check(err)
	ts.Check(os.Mkdir(ts.MkAbs(args[1]), 0o700))
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[1]), "state.db"), content, 0o600))
}

// hold keeps the state locked, like a running master, until the end of the script.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold FOLDER")
	}
	db, err := store.Open(ts.MkAbs(args[0]), store.Options{})
	ts.Check(err)
	ts.Defer(func() { _ = db.Close() })
}

// offer records a running worker that offers two services, and a registered endpoint.
func offer(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	worker := records.Worker{
		ID: "worker-0", Unit: "worker", Desired: records.DesiredRunning, Status: records.StatusRunning,
		Incarnation: 1, Port: 40001,
		Instance: &records.Instance{
			Token: strings.Repeat("0", 32), Process: identity.Process{PID: 4711}, Port: 40001,
		},
		Services: []records.Offer{{Name: "pkg.Known"}, {Name: "pkg.Told", Reflected: true}},
	}
	outside := records.Registration{Service: "pkg.Outside", Address: "10.0.0.7:8080", TTL: 30 * time.Second}
	return errors.Join(db.Apply(context.Background(), records.PutWorker(worker), records.PutRegistration(outside)),
		db.Close())
}

// contradict records a worker whose status is running but which has no process.
func contradict(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	record := records.PutWorker(records.Worker{
		ID: "worker-1", Unit: "worker", Desired: records.DesiredRunning, Status: records.StatusRunning, Incarnation: 1,
	})
	return errors.Join(db.Apply(context.Background(), record), db.Close())
}

// fail records a failed worker and its output.
func fail(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	record := records.PutWorker(records.Worker{
		ID: "worker-0", Unit: "worker", Desired: records.DesiredRunning, Status: records.StatusFailed,
		Reason: "it left", Incarnation: 1,
	})
	if err := errors.Join(db.Apply(context.Background(), record), db.Close()); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(args[0], "logs"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(args[0], "logs", "worker-0.log"), []byte("the last line\n"), 0o600)
}

// scale records a unit that an operator has scaled, and one that is being given up.
func scale(args []string) error {
	db, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	err = db.Apply(context.Background(),
		records.PutUnit(records.Unit{Name: "worker", Kind: records.KindIntegrated, Replicas: 2, Scale: new(3)}),
		records.PutWorker(records.Worker{ID: "gone-0", Desired: records.DesiredStopped, Status: records.StatusStopped}),
		records.PutUnit(records.Unit{Name: "gone", Replicas: 1, Disabled: true, Retired: true}))
	return errors.Join(err, db.Close())
}

func setSchema(args []string) error {
	version, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	db, err := bolt.Open(filepath.Join(args[0], "state.db"), 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema_version"), binary.BigEndian.AppendUint64(nil, version))
	})
	return errors.Join(err, db.Close())
}

// flip inverts a bit of the byte at an offset of a file.
func flip(args []string) error {
	content, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	at, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	content[at] ^= 0x10
	return os.WriteFile(args[0], content, 0o600)
}

// cut truncates a file to a size.
func cut(args []string) error {
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	return os.Truncate(args[0], size)
}

// remember and unchanged verify that a command creates and changes no file.
func remember(ts *testscript.TestScript, _ bool, args []string) {
	listing, err := contents(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("REMEMBERED", listing)
}

func unchanged(ts *testscript.TestScript, _ bool, args []string) {
	listing, err := contents(ts.MkAbs(args[0]))
	ts.Check(err)
	if diff := cmp.Diff(ts.Getenv("REMEMBERED"), listing); diff != "" {
		ts.Fatalf("%s has changed (-before +after):\n%s", args[0], diff)
	}
}

// contents lists everything below a folder: names, modes, modification times and content.
func contents(dir string) (string, error) {
	var listing strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&listing, "%s %s %s", path, info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&listing, " %x", sha256.Sum256(content))
		}
		listing.WriteByte('\n')
		return nil
	})
	return listing.String(), err
}
