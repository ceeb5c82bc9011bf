// Package identity has the values by which a process is recognised after the master that started it is gone: which
// process it was, which files were its own, and how it ended. Package process observes them, package store keeps them,
// and everything between passes them on unchanged.
package identity

import "strconv"

// Process is the recorded evidence by which a process is recognised later.
type Process struct {
	BootID       string // of the boot in which it ran; a different boot ID means that it is gone
	PID          int    // as seen in PIDNamespace
	Inode        uint64 // of its pidfd; 0 unless Proof is ProofPidfdInode
	StartTicks   uint64 // clock ticks after boot, field 22 of /proc/PID/stat
	PIDNamespace uint64 // inode of the PID namespace of PID
	Proof        Proof  // which of the above is the evidence
}

// Proof is the kind of evidence that a process is the recorded one. The zero value means that none has been recorded.
type Proof string

// The values of Proof, as records and dumps show them.
const (
	ProofNone Proof = ""
	// ProofPidfdInode is the inode of the process's pidfd: unique per process and
	// boot, the same for every observer and across execve (Linux 6.9, PID_FS_MAGIC).
	ProofPidfdInode Proof = "pidfd-inode"
	// ProofStartTimeToken is the start time together with the token in the environment. The start time alone repeats
	// if a PID is reused within one clock tick.
	ProofStartTimeToken Proof = "start-time-token"
)

// FileID identifies a file or folder on this machine by device and inode, because a path can name another file
// later.
type FileID struct{ Device, Inode uint64 }

// String returns "device:inode" in decimal, the form of HSU_STATE_DIR in the environment of a worker.
func (id FileID) String() string {
	return strconv.FormatUint(id.Device, 10) + ":" + strconv.FormatUint(id.Inode, 10)
}
