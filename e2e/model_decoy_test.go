//go:build e2e && linux && (crash || torture)

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/storepb"
)

// stander is a foreign process in the place of a recorded worker, and notes every signal: see decoy in
// testdata/unit.
type stander struct {
	cmd    *exec.Cmd
	record string
	port   int
	born   uint64
	ended  chan struct{}
	times  int // number of records that were made to name it
}

// employ starts the rig's decoy, which listens on the port.
func (r *rig) employ(port int) error {
	s := &stander{record: filepath.Join(r.dir, "decoy"), port: port, ended: make(chan struct{})}
	if err := os.Mkdir(s.record, 0o700); err != nil {
		return err
	}
	s.cmd = exec.Command(programs.unit, "-as", "decoy", "-record", s.record, "-port", strconv.Itoa(port))
	s.cmd.Env = cleanEnviron()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	r.decoy = s
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left, _ := filepath.Glob(filepath.Join(s.record, "decoy.*"))
		err := listening(port)
		if len(left) > 0 && !strings.HasSuffix(left[0], ".new") && err == nil {
			break
		}
		if time.Now().After(deadline) {
			return errors.Join(errors.New("the decoy does not stand"), err)
		}
	}
	f, err := readStat(fmt.Sprintf("/proc/%d", s.pid()))
	s.born = f.born
	return err
}

func (s *stander) pid() int { return s.cmd.Process.Pid }

// untouched fails if the decoy got any signal, or no longer runs.
func (s *stander) untouched() error {
	f, err := readStat(fmt.Sprintf("/proc/%d", s.pid()))
	if err != nil || strings.IndexByte("ZXTt", f.state) >= 0 {
		return fmt.Errorf("the stranger was killed or stopped: state %c, %w", f.state, err)
	}
	if got, err := os.ReadFile(filepath.Join(s.record, "signals")); err == nil {
		return fmt.Errorf("the stranger got signals: %q", got)
	}
	return nil
}

func (s *stander) end() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// disguises are the ways in which a record can be wrong about the decoy. None may lead to a signal.
var disguises = []func(w *storepb.Worker, born uint64){
	func(*storepb.Worker, uint64) {},                                      // the PID was reused
	func(w *storepb.Worker, born uint64) { w.Instance.StartTicks = born }, // within a clock tick
	func(w *storepb.Worker, _ uint64) {
		if w.GetStatus() == storepb.Status_STATUS_RUNNING {
			w.Status = storepb.Status_STATUS_UNHEALTHY
		}
	},
	func(w *storepb.Worker, born uint64) { // the same, from a kernel that has no better proof
		w.Instance.StartTicks, w.Instance.Proof = born+1, storepb.Proof_PROOF_START_TIME_TOKEN
	},
}

// plant makes the record of a worker whose process is dead name the decoy, its PID and its port, as if both had
// been reused. No master may run. If another record still names the decoy, because no master has processed it yet,
// plant does nothing: no PID is reused twice.
func (r *rig) plant(id string) error {
	if r.decoy == nil {
		return nil
	}
	snap, err := readState(r.state)
	if err != nil {
		return err
	}
	for _, w := range snap.Workers {
		if w.ID != id && w.Instance != nil && w.Instance.Port == r.decoy.port {
			return nil
		}
	}
	change := disguises[r.decoy.times%len(disguises)]
	r.decoy.times++
	return r.edit(id, func(w *storepb.Worker) {
		w.Instance.Pid = int32(r.decoy.pid()) //nolint:gosec // a PID fits
		w.Instance.Port, w.Port = int32(r.decoy.port), int32(r.decoy.port)
		change(w, r.decoy.born)
	})
}

// edit changes the record of a worker while no master runs. It edits the file itself, so that it works on a schema
// of any version.
func (r *rig) edit(id string, change func(*storepb.Worker)) error {
	db, err := bolt.Open(filepath.Join(r.state, "state.db"), 0o600, &bolt.Options{
		Timeout: patience, FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return fmt.Errorf("edit the record of %s: %w", id, err)
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(migrations.BucketWorkers)
		var w storepb.Worker
		if err := proto.Unmarshal(b.Get([]byte(id)), &w); err != nil {
			return err
		}
		if w.GetInstance() == nil {
			return fmt.Errorf("the record of %s names no instance", id)
		}
		change(&w)
		value, err := proto.Marshal(&w)
		if err != nil {
			return err
		}
		return b.Put([]byte(id), value)
	})
}
