//go:build e2e && linux && (crash || torture)

package crash

import (
	"errors"
	"fmt"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/storepb"
)

// stander is a decoy in the place of a recorded worker.
type stander struct {
	*harness.Decoy
	port  int
	born  uint64
	times int // number of records that were made to name it
}

// employ starts the rig's decoy, which listens on the port.
func (r *rig) employ(port int) error {
	d, err := harness.StartDecoy(filepath.Join(r.dir, "decoy"), port)
	if err != nil {
		return err
	}
	r.decoy = &stander{Decoy: d, port: port, born: harness.StartTicks(d.PID)}
	return nil
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
	return r.edit(id, func(w *storepb.Worker) error {
		if w.GetInstance() == nil {
			return fmt.Errorf("the record of %s names no instance", id)
		}
		w.Instance.Pid = int32(r.decoy.PID) //nolint:gosec // a PID fits
		w.Instance.Port, w.Port = int32(r.decoy.port), int32(r.decoy.port)
		change(w, r.decoy.born)
		return nil
	})
}

// edit changes the record of a worker while no master runs. It edits the file itself, so that it works on a schema
// of any version.
func (r *rig) edit(id string, change func(*storepb.Worker) error) error {
	return r.change(func(tx *bolt.Tx) error {
		b := tx.Bucket(migrations.BucketWorkers)
		var w storepb.Worker
		if err := proto.Unmarshal(b.Get([]byte(id)), &w); err != nil {
			return err
		}
		if err := change(&w); err != nil {
			return err
		}
		value, err := proto.Marshal(&w)
		if err != nil {
			return err
		}
		return b.Put([]byte(id), value)
	})
}

// change changes state.db while no master runs.
func (r *rig) change(how func(*bolt.Tx) error) error {
	db, err := bolt.Open(filepath.Join(r.state, "state.db"), 0o600, &bolt.Options{
		Timeout: harness.Patience, FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(how), db.Close())
}
