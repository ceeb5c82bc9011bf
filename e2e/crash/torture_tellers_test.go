//go:build e2e && torture && linux

package crash

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// Companions that tell the master about themselves, or outgrow it: those that are ready by READY=1, those that choose
// their own port, and one that is restarted when it has grown. A module and a loner offer the services of the workers.

const (
	beat   = "beat"   // sends READY=1 once, and WATCHDOG=1 from then on
	module = "module" // publishes its port at the registry
	loner  = "loner"  // listens on a port of its own choice and publishes nothing
	grower = "grower" // grows when the test tells it to
)

// tellers returns the units of these companions.
func (c *companions) tellers(turn string) (text string) {
	unit := func(name, kind, arguments, keys string) {
		text += fmt.Sprintf(`  %s:
    kind: %s
    command: [%q, -as, %s]
    environment: {TURN: %q}
    restart: {backoff: {initial: 1ms}, budget: {restarts: 1000, within: 5m}}
    stop: {grace: 300ms}
%s`, name, kind, harness.Programs.Unit, arguments, turn, keys)
	}
	const patient = "    start: {timeout: 15s}\n"
	unit(beat, "managed", "telling", patient+"    health: {type: notify, interval: 500ms, failures: 30}\n")
	// Its READY=1 is lost if no master runs, and only the end of this time helps then.
	unit(once, "managed", once,
		"    start: {timeout: 8s}\n    readiness: {type: notify}\n    liveness: {type: process}\n")
	own := fmt.Sprintf("module, -echo, -record, %q, -notes, %q", c.record, c.handled)
	ports := patient + "    port: announced\n    services: [proto.MyBusinessService, proto.EchoService]\n"
	unit(loner, "integrated", own, ports)
	unit(module, "integrated", own+fmt.Sprintf(", -patient, -registry, %q", c.socket), ports)
	unit(grower, "managed", grower, "    start: {settle: 10ms}\n    memory_restart: 64MiB\n")
	return text
}

// registry returns the flags of masters that read the file.
func (c *companions) registry() []string { return []string{"--registry", "unix://" + c.socket} }

// excuseUnheard allows that a worker is restarted whose only READY=1 may have been lost with a master: one that is not
// recorded as ready.
func (v *victim) excuseUnheard(o offline) {
	for _, b := range o.living {
		if w := o.records[b.worker]; b.worker == once+"-0" && w.Status == records.StatusStarting {
			v.workers.excuse(b)
			b.doomed = true
		}
	}
	v.workers.look(o)
}

// countTeller counts a worker that was as it should be.
func (v *victim) countTeller(w *adminpb.Worker) {
	unit, _, _ := strings.Cut(w.GetId(), "-")
	v.tally.add(func(c *score) {
		switch {
		case unit == module, unit == loner:
			c.ownPorts++
		case w.GetAdopted() && (unit == beat || unit == once):
			c.adopted++
		}
	})
}

// grow has the grower use more memory than it may.
func (v *victim) grow() {
	for _, b := range leadersOf(v.workers.scan())[grower+"-0"] {
		v.did("worker grown", b.worker)
		v.workers.excuse(b)
		b.signal(unix.SIGUSR1)
	}
}

// outgrown has the grower grow, and waits until it is restarted for that.
func (v *victim) outgrown() error {
	if v.workers.companions == 0 {
		return nil
	}
	v.grow()
	for {
		ended, err := v.masters.await("the worker that has grown is restarted", func() error {
			state, err := v.rig.admin.ask()
			for _, w := range state.GetWorkers() {
				if w.GetId() == grower+"-0" && (w.GetStatus() != "running" || v.workers.excused[w.GetToken()]) {
					err = errors.Join(err, fmt.Errorf("%v", w))
				}
			}
			return err
		})
		if !ended {
			return err
		}
		// The master has reached the crash point that it was started with.
		if err := errors.Join(err, v.reap(), v.calm()); err != nil {
			return err
		}
	}
}
