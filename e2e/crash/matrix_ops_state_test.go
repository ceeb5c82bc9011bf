//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store"
)

// Operations on the state itself, by masters and by users.

func operationsOnTheState() []*operation {
	goOn := []string{"--on-damage", "recover"}
	ops := []*operation{
		{
			name: "backup", launched: true, prepare: withAnOldBackup, flags: []string{"--backup-keep", "1"},
			rest: func(_ *rig, _, now map[string]int) error {
				if now["after-prune"] == 0 {
					return errors.New("no backup was made and another removed")
				}
				return nil
			},
		},
		{
			name: "damage", launched: true, flags: goOn,
			prepare: func(r *rig) error { return errors.Join(r.masters.kill(), r.damage()) },
		},
		{name: "damage, no backup", launched: true, flags: goOn, prepare: func(r *rig) error {
			err := errors.Join(r.masters.kill(), r.damage(), os.RemoveAll(filepath.Join(r.state, "backups")))
			return errors.Join(err, r.workers.forgetAll())
		}},
		{name: "damaged count", launched: true, flags: goOn, prepare: damagedCount},
		{name: "damaged counter.dat", launched: true, flags: goOn, prepare: damagedCounter},
		{name: "state backup", prepare: func(r *rig) error { return r.masters.kill() }, command: func(r *rig) []string {
			return []string{"state", "backup", "--force", "--state-dir", r.state, filepath.Join(r.dir, "exported.db")}
		}},
		{name: "state restore", prepare: func(r *rig) error {
			r.damaged = true // as after damage, records may be older than processes
			return r.masters.kill()
		}, command: func(r *rig) []string {
			return []string{"state", "restore", "--state-dir", r.state, r.newestBackup()}
		}},
		{name: "state compact", prepare: withRoomToGain, command: func(r *rig) []string {
			return []string{"state", "compact", "--state-dir", r.state}
		}},
	}
	if !underSystemd() { // it would be asked to load the units of a test
		ops = append(ops, &operation{
			name: "systemd install", prepare: func(r *rig) error {
				return errors.Join(r.masters.kill(), os.MkdirAll(filepath.Join(r.dir, "units"), 0o700))
			},
			command: func(r *rig) []string { return r.install() },
			after: func(r *rig) error {
				// Whether this one is killed or not, the next one succeeds, and leaves complete files.
				units := filepath.Join(r.dir, "units")
				install := exec.Command(harness.Programs.Master, r.install()...)
				install.Env = harness.CleanEnviron()
				output, err := install.CombinedOutput()
				if err != nil {
					return fmt.Errorf("install after it: %w: %s", err, output)
				}
				for _, name := range []string{"hsu-master.service", "hsu-master.socket"} {
					text, err2 := os.ReadFile(filepath.Join(units, name))
					if err2 == nil && (!strings.Contains(string(text), "[Unit]\n") ||
						!strings.Contains(string(text), "[Install]\n")) {
						err2 = fmt.Errorf("%s is not whole: %q", name, text)
					}
					err = errors.Join(err, err2)
				}
				return errors.Join(err, os.RemoveAll(units))
			},
		})
	}
	return ops
}

func underSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

func (r *rig) install() []string {
	return []string{
		"systemd", "install", "--unit-dir", filepath.Join(r.dir, "units"), "--state-dir", r.state,
		"--worker-path", r.program, "--port", strconv.Itoa(r.port),
	}
}

// newestBackup returns the newest backup in the state directory: the names sort by age.
func (r *rig) newestBackup() string {
	paths, _ := filepath.Glob(filepath.Join(r.state, "backups", "state-*.db"))
	if len(paths) == 0 {
		return "no backup"
	}
	return paths[len(paths)-1]
}

// withAnOldBackup makes the existing backup an old one, so that the start makes another one and then has one too
// many.
func withAnOldBackup(r *rig) error {
	if err := r.masters.kill(); err != nil {
		return err
	}
	newest := r.newestBackup()
	name, _, found := strings.Cut(filepath.Base(newest), "-schema")
	if !found {
		return fmt.Errorf("a backup of another name: %s", newest)
	}
	return os.Rename(newest, filepath.Join(r.state, "backups",
		fmt.Sprintf("%s-schema%d-20200101T000000Z.db", name, released)))
}

// damage makes state.db unreadable, in a different way each time.
func (r *rig) damage() error {
	r.damaged = true
	path := filepath.Join(r.state, "state.db")
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.turn++
	switch r.turn % 4 {
	case 0:
		return os.Truncate(path, fi.Size()/2)
	case 1:
		return os.WriteFile(path, make([]byte, fi.Size()), 0o600)
	case 2:
		return os.WriteFile(path, []byte("something else altogether\n"), 0o600)
	}
	return os.Remove(path)
}

// folded ends the master, which writes the count into state.db and leaves the workers.
func folded(r *rig) error {
	return errors.Join(r.masters.running.cmd.Process.Signal(unix.SIGUSR1), r.masters.buried(false))
}

func damagedCount(r *rig) error {
	if err := folded(r); err != nil {
		return err
	}
	r.damaged = true
	return r.change(func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketCounters).Put([]byte("processed_count"), []byte("many"))
	})
}

func damagedCounter(r *rig) error {
	if err := folded(r); err != nil {
		return err
	}
	r.damaged = true
	return os.WriteFile(filepath.Join(r.state, "counter.dat"), make([]byte, 8192), 0o600)
}

// withRoomToGain makes state.db larger than its content.
func withRoomToGain(r *rig) error {
	if err := r.masters.kill(); err != nil {
		return err
	}
	key, much := []byte("much"), make([]byte, 1<<20)
	return errors.Join(
		r.change(func(tx *bolt.Tx) error { return tx.Bucket(migrations.BucketMeta).Put(key, much) }),
		r.change(func(tx *bolt.Tx) error { return tx.Bucket(migrations.BucketMeta).Delete(key) }))
}

// checkBackups fails if a file with the name of a backup is incomplete.
func (r *rig) checkBackups() error {
	paths, err := filepath.Glob(filepath.Join(r.state, "backups", "state-*.db"))
	for _, path := range append(paths, filepath.Join(r.dir, "exported.db")) {
		problems, err2 := store.CheckFile(path)
		if err2 == nil && !problems.OK() {
			err2 = fmt.Errorf("backup %s: %v", path, problems)
		}
		if !errors.Is(err2, fs.ErrNotExist) {
			err = errors.Join(err, err2)
		}
	}
	return err
}
