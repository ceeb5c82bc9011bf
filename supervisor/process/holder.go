package process

import (
	"strconv"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// Environment variables that every instance and its descendants carry. A master uses these names to find the
// workers of an earlier master.
const (
	EnvMasterID    = "HSU_MASTER_ID"    // UUID of the master that started the instance
	EnvStateDir    = "HSU_STATE_DIR"    // the master's state folder as identity.FileID.String, "device:inode"
	EnvWorkerID    = "HSU_WORKER_ID"    // the worker whose slot the instance fills
	EnvWorkerToken = "HSU_WORKER_TOKEN" // the instance's own random token
	EnvWorkerPort  = "HSU_WORKER_PORT"  // the port assigned to the instance
)

// Holder is a process that carries a worker's token, or belongs to a family. The process itself controls the
// values from its environment: compare them, but never print, open or run them unchecked.
type Holder struct {
	PID, PPID, PGID, SID int
	UID                  uint32 // effective uid
	State                byte   // as in /proc/PID/stat; that of a living thread if the first one has ended
	StartTicks           uint64 // clock ticks after boot
	MasterID             string
	StateDir             string
	WorkerID             string
	Token                string
	Port                 int // 0 if the environment has none
}

// parseHolder returns a Holder with the values from the environment of a worker. It returns false if the
// environment has no token.
func parseHolder(environ []byte) (h Holder, ok bool) {
	if h.Token, ok = procfs.LookupEnv(environ, EnvWorkerToken); !ok {
		return Holder{}, false
	}
	h.MasterID, _ = procfs.LookupEnv(environ, EnvMasterID)
	h.StateDir, _ = procfs.LookupEnv(environ, EnvStateDir)
	h.WorkerID, _ = procfs.LookupEnv(environ, EnvWorkerID)
	if text, found := procfs.LookupEnv(environ, EnvWorkerPort); found {
		if port, err := strconv.ParseUint(text, 10, 16); err == nil {
			h.Port = int(port)
		}
	}
	return h, true
}
