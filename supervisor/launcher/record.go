package launcher

import (
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

func processIdentity(rec store.Instance) process.Identity {
	proof := process.ProofStartTimeToken
	if rec.Proof == store.ProofPidfdInode {
		proof = process.ProofPidfdInode
	}
	return process.Identity{
		BootID:       rec.BootID,
		PID:          rec.PID,
		Inode:        rec.Inode,
		StartTicks:   rec.StartTicks,
		PIDNamespace: rec.PIDNamespace,
		Proof:        proof,
	}
}

// Identified returns rec with the identity of its process.
func Identified(rec store.Instance, id process.Identity) store.Instance {
	rec.PID, rec.Inode, rec.StartTicks = id.PID, id.Inode, id.StartTicks
	rec.BootID, rec.PIDNamespace = id.BootID, id.PIDNamespace
	rec.Proof = store.ProofStartTimeToken
	if id.Proof == process.ProofPidfdInode {
		rec.Proof = store.ProofPidfdInode
	}
	return rec
}

func ExitRecord(e process.Exit) store.Exit {
	rec := store.Exit{Code: e.Code, Signal: int(e.Signal)}
	switch e.Source {
	case process.ExitWait:
		rec.Source = store.ExitWait
	case process.ExitPidfd:
		rec.Source = store.ExitPidfd
	case process.ExitStat:
		rec.Source = store.ExitStat
	case process.ExitUnknown:
		rec.Source = store.ExitUnknown
	}
	return rec
}
