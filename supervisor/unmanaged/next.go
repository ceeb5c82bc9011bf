package unmanaged

import (
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
)

// event is a change of the process of a unit. One of the kinds below.
type event struct {
	kind   kind
	found  *records.Found // of evFound
	exit   identity.Exit  // of evEnded
	reason string
}

type kind int

const (
	evFound   kind = iota // a search has found it
	evMissing             // a search has found none
	evEnded               // the process that was watched has ended
	evChanged             // the process that was watched does not match any more
	evSick                // its liveness check was missed too often in a row
	evWell                // its liveness check was passed often enough in a row
)

// same reports whether two records are of the same process.
func same(a, b *records.Found) bool {
	if a == nil || b == nil || a.BootID != b.BootID || a.PIDNamespace != b.PIDNamespace || a.PID != b.PID {
		return false
	}
	if a.Inode != 0 && b.Inode != 0 {
		return a.Inode == b.Inode
	}
	return a.StartTicks == b.StartTicks
}

// next returns the record of a unit after an event, and the notices for the history. A record without a status is that
// of a unit that was not watched before.
func next(rec records.Worker, e event, now time.Time) (records.Worker, []notice) {
	before := rec.Found
	var said []notice
	switch e.kind {
	case evFound:
		rec.Found = e.found
		if same(before, e.found) {
			break
		}
		if before != nil {
			said = append(said, gone(before, "ended while no master watched it"))
		}
		rec.Status, rec.Reason = records.StatusRunning, ""
		said = append(said, found(e.found))
	case evMissing:
		switch {
		case before != nil:
			said = append(said, gone(before, "ended while no master watched it: "+e.reason))
		case rec.Status == "":
			said = append(said, absent(e.reason))
		}
		rec.Found, rec.Status, rec.Reason = nil, records.StatusAbsent, e.reason
	case evEnded:
		e.exit.At = now
		rec.Ended(e.exit, e.exit.String())
		rec.Found, rec.Status, rec.Reason = nil, records.StatusAbsent, e.exit.String()
		said = append(said, gone(before, e.exit.String()))
	case evChanged:
		rec.Found, rec.Status, rec.Reason = nil, records.StatusAbsent, e.reason
		said = append(said, gone(before, "does not match any more: "+e.reason))
	case evSick:
		if rec.Status != records.StatusUnhealthy {
			said = append(said, unhealthy(e.reason))
		}
		rec.Status, rec.Reason = records.StatusUnhealthy, e.reason
	case evWell:
		if rec.Status == records.StatusUnhealthy {
			said = append(said, healthy(before))
		}
		rec.Status, rec.Reason = records.StatusRunning, ""
	}
	return rec, said
}
