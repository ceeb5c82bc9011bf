//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Decoy is a foreign process that no master may touch. It notes every signal in the folder Record.
type Decoy struct {
	PID    int
	Record string
	born   uint64 // its start time, 0 if that is not known
	cmd    *exec.Cmd
	ended  chan struct{}
}

// StartDecoy starts a decoy, which listens on the port unless that is 0. The folder record must not exist.
func StartDecoy(record string, port int, environ ...string) (*Decoy, error) {
	if err := os.Mkdir(record, 0o700); err != nil {
		return nil, err
	}
	d := &Decoy{Record: record, ended: make(chan struct{})}
	d.cmd = exec.Command(Programs.Unit, "-as", "decoy", "-record", record, "-port", strconv.Itoa(port))
	d.cmd.Env = append(CleanEnviron(), environ...)
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.PID = d.cmd.Process.Pid
	d.born = StartTicks(d.PID)
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait()
	}()
	err := Poll(func() error {
		left, _ := filepath.Glob(filepath.Join(record, "decoy.*"))
		if len(left) == 0 || strings.HasSuffix(left[0], ".new") {
			return errors.New("the decoy does not stand")
		}
		if port != 0 {
			return Listening(port)
		}
		return nil
	})
	if err != nil {
		d.End()
		return nil, err
	}
	return d, nil
}

// StartDecoy starts a decoy, which listens on the port unless that is 0. It ends with the test.
func (h *Host) StartDecoy(port int, environ ...string) *Decoy {
	h.T.Helper()
	d, err := StartDecoy(filepath.Join(h.Dir, fmt.Sprintf("decoy-%d", len(h.Others))), port, environ...)
	if err != nil {
		h.T.Fatal(err)
	}
	h.Others[d.PID] = true
	h.T.Cleanup(d.End)
	return d
}

// Untouched fails if the decoy was killed or stopped, or got any signal.
func (d *Decoy) Untouched() error {
	f, err := ReadStat(fmt.Sprintf("/proc/%d", d.PID))
	if err != nil || strings.IndexByte("ZXTt", f.State) >= 0 {
		return fmt.Errorf("the decoy was killed or stopped: state %c, %w", f.State, err)
	}
	if d.born != 0 && f.StartTicks != d.born {
		return fmt.Errorf("the decoy was killed: process %d is another one", d.PID)
	}
	if got, err := os.ReadFile(filepath.Join(d.Record, "signals")); err == nil {
		return fmt.Errorf("the decoy got signals: %q", got)
	}
	return nil
}

// WantUntouched checks that the decoy is untouched.
func (d *Decoy) WantUntouched(t *testing.T) {
	t.Helper()
	if err := d.Untouched(); err != nil {
		t.Error(err)
	}
}

// End kills the decoy.
func (d *Decoy) End() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}
